#!/usr/bin/env bash
# Kills what up.sh started, by pid, and leaves nothing behind but run/logs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
for part in settings processes control-plane node; do source "$here/lib/$part.sh"; done

for node in "$RUN"/nodes/*/; do
    [[ -d $node ]] && kill_node "$(basename "$node")"
done
kill_started kwok
for process in "${CONTROL_PLANE_PROCESSES[@]}"; do
    kill_started "$process"
done
forget_nodes
mkdir -p "$RUN"
find "$RUN" -mindepth 1 -maxdepth 1 ! -name logs -exec rm -rf --one-file-system {} +
say 'down'

#!/usr/bin/env bash
# Starts a Kubernetes on loopback and waits until it is usable; started again, it starts what has died meanwhile. What is not built yet
# is built first.
#
#   up.sh                        control plane and one node, 127.0.0.1 (root)
#   up.sh --control-plane-only   no node: pods stay Pending (no root)
#   up.sh --nodes 2              also 127.0.0.2 (root)
#   up.sh --fake-nodes 2         control plane with an audit log, and nodes on which kwok lets every pod succeed at once (no root)
#
# Its last line is the export of KUBECONFIG. Beside the kubeconfig are logs/ and pids/. CLUSTER_NETWORK=127.0.5 is another cluster.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
for part in settings processes pki control-plane fake-nodes images node; do source "$here/lib/$part.sh"; done

nodes=1 fake_nodes=0
while (($# > 0)); do
    case $1 in
        --control-plane-only) nodes=0 ;;
        --fake-nodes) nodes=0 fake_nodes=${2:?how many} && shift ;;
        --nodes) nodes=${2:?how many} && shift ;;
        *) die "unknown argument $1" ;;
    esac
    shift
done

if ((nodes == 0)); then "$here/build.sh" --programs; else "$here/build.sh"; fi

[[ -e $PKI ]] || rm -rf "$LOGS" # of the cluster before this one
mkdir -p "$RUN"
make_pki
((fake_nodes == 0)) || AUDIT=(--audit-policy-file "$HERE/config/audit.yaml" --audit-log-path "$LOGS/audit.log")
start_control_plane
for ((number = 1; number <= nodes; number++)); do
    start_node "$NETWORK.$number"
done
wait_for_control_plane
((fake_nodes == 0)) || start_fake_nodes "$fake_nodes"
for ((number = 1; number <= nodes; number++)); do
    wait_for_node "$NETWORK.$number"
done
say "export KUBECONFIG=$ADMIN_KUBECONFIG"

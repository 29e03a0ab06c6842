#!/usr/bin/env bash
# Gives an image to a node of a running cluster.
#
#   image.sh import ARCHIVE   of a `docker save` archive
#   image.sh name OLD NEW     another name of an image that is there: docker.io/library/python:3
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
for part in settings images node; do source "$here/lib/$part.sh"; done
for folder in "$RUN"/nodes/*; do
    node=${folder##*/}
    case ${1:?what to do} in
        import) ctr_on "$node" images import "${2:?an archive}" >/dev/null ;;
        name) ctr_on "$node" images tag --force "${2:?a name}" "${3:?another name}" >/dev/null ;;
        *) die "unknown command $1" ;;
    esac
done

#!/usr/bin/env bash
# Says in one line why no cluster can run here, and fails; silent where one can.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/lib/settings.sh"

impossible() { echo "$*"; exit 1; }

[[ $(uname -sm) == 'Linux x86_64' ]] || impossible "its node needs Linux on x86_64, this is $(uname -sm)"
[[ $EUID == 0 ]] || impossible 'a node (containerd and a kubelet) needs root'
command -v apt-get >/dev/null || impossible "containerd and the images are made of Debian's packages, and there is no apt-get"
command -v go >/dev/null || [[ -x ${KUBEBUILDER_ASSETS:-}/kubelet && -x ${KUBEBUILDER_ASSETS:-}/kube-controller-manager ]] ||
    impossible 'Kubernetes is built from its Go modules, and there is no go (and no KUBEBUILDER_ASSETS with all its programs)'
reason=$(unshare --mount --pid --fork --mount-proc mount -t tmpfs node /mnt 2>&1) || impossible "a node needs namespaces and mounts of its own: $reason"

# One node: containerd and a kubelet in a mount and a pid namespace of their own. Sourced; needs root.
#
# So a node dies with one SIGKILL, its pods with it, as a machine does, and the kernel takes back its mounts and network
# devices; started again, it has another boot id. What lies outside of the namespaces is cleaned by forget_nodes.

CGROUP=windlass-cluster-$NETWORK
SAVED_SYSCTLS=/run/windlass-cluster-sysctls # of the machine, whoever of its clusters came first
# The kubelet and the ptp plugin set these for the whole machine.
SYSCTLS=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops
    kernel.keys.root_maxkeys kernel.keys.root_maxbytes net.ipv4.ip_forward)

# These have no setting. On the machine's own they would be left behind, and two nodes would share them.
NODE_OWN_FOLDERS=(/run/containerd /var/lib/kubelet /var/lib/cni /var/log/containers)

node_folder() { echo "$RUN/nodes/$1"; }

start_node() { # address; it becomes ready later
    local address=$1 node
    node=$(node_folder "$1")
    [[ $EUID == 0 ]] || die 'a node needs root'
    mkdir -p "$node"/{containerd,cni,cni-addresses,kubelet,pod-logs,volume-plugins}
    make_kubelet_pki "$address"
    render containerd.toml "$address" >"$node/containerd.toml"
    render kubelet.yaml "$address" >"$node/kubelet.yaml"
    render cni.conflist "$address" >"$node/cni/10-ptp.conflist"
    [[ -e $SAVED_SYSCTLS ]] || sysctl "${SYSCTLS[@]}" >"$SAVED_SYSCTLS"
    is_running "node-$address" || rm -f "$node/containerd.sock" "$node/boot-id" # of the boot before
    start "node-$address" \
        env NODE="$node" ADDRESS="$address" LOGS="$LOGS" KUBELET="$BIN/kubelet" KUBECONFIG="$PKI/kubelet-$address.kubeconfig" \
        unshare --mount --pid --fork --mount-proc --kill-child "$HERE/lib/node-init" "${NODE_OWN_FOLDERS[@]}"
    wait_for 30 "node-$address" test -S "$node/containerd.sock"
    for archive in "$IMAGES"/*.tar; do
        ctr_on "$address" images import "$archive" >/dev/null
    done
}

wait_for_node() { # address
    wait_for 60 "node-$1" node_is_ready "$1"
    say "node $1 is ready"
}

render() { # template address
    local numbers
    IFS=. read -ra numbers <<<"$2" # 127.0.0.2 gets 10.100.2.0/24
    sed -e "s|@NODE@|$(node_folder "$2")|g" -e "s|@ADDRESS@|$2|g" -e "s|@PKI@|$PKI|g" -e "s|@CGROUP@|/$CGROUP/$2|g" \
        -e "s|@POD_CIDR@|10.$((100 + numbers[2])).${numbers[3]}.0/24|g" -e "s|@KUBELET_PORT@|$KUBELET_PORT|g" \
        -e "s|@KUBELET_HEALTH_PORT@|$KUBELET_HEALTH_PORT|g" "$HERE/config/$1.in"
}

ctr_on() { # address command…
    local address=$1
    shift
    ctr --address "$(node_folder "$address")/containerd.sock" --namespace k8s.io "$@"
}

# Ready since this boot: for a minute Kubernetes believes that a node which has died is still ready.
node_is_ready() { # address
    local ready='{.status.nodeInfo.bootID} {.status.conditions[?(@.type=="Ready")].status}'
    [[ $(kubectl get node "$1" --output "jsonpath=$ready") == "$(<"$(node_folder "$1")/boot-id") True" ]]
}

# Kills the first process in the pid namespace: its parent, which is the one that was started, ends when all in there are gone.
kill_node() { # address
    local name=node-$1
    ! is_running "$name" || pkill -KILL --parent "$(<"$PIDS/$name.pid")"
    forget "$name"
}

# What dead nodes leave outside of their namespaces: cgroups, mount points, settings of the machine.
forget_nodes() {
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [[ -d $hierarchy/$CGROUP ]] && find "$hierarchy/$CGROUP" -depth -type d -exec rmdir {} +
    done
    if [[ -e $SAVED_SYSCTLS ]] && ! compgen -G '/sys/fs/cgroup/*/windlass-cluster-*' >/dev/null && ! compgen -G '/sys/fs/cgroup/windlass-cluster-*' >/dev/null; then
        sysctl --quiet --load="$SAVED_SYSCTLS"
        rm -f "$SAVED_SYSCTLS"
    fi
    rmdir "${NODE_OWN_FOLDERS[@]}" 2>/dev/null || true # those that hold something are the machine's
}

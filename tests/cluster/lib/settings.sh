# What every script here agrees on: folders, addresses. Sourced, never run.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# What is built, by key: survives down.sh and a deleted checkout.
CACHE=${CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/windlass-test-cluster}
# The first three numbers of every address: several clusters may run beside each other, 127.0.0 to 127.0.99.
NETWORK=${CLUSTER_NETWORK:-127.0.0}
TARGET=$(cd "$HERE/../.." && pwd)/target/cluster
BIN=$TARGET/bin # links into the cache
# What one running cluster owns: down.sh empties it. Short, since sockets lie in it.
RUN=${CLUSTER_RUN:-/tmp/windlass-cluster-$EUID/$NETWORK}

# Everything listens on loopback. The ports are below the ephemeral range.
CONTROL_PLANE=$NETWORK.1
ETCD_PORT=16479
ETCD_PEER_PORT=16480
API_SERVER_PORT=16443
CONTROLLER_MANAGER_PORT=16457
SCHEDULER_PORT=16459
KUBELET_PORT=16450
KUBELET_HEALTH_PORT=16448

SERVICE_CIDR=10.96.0.0/16
ADMIN_KUBECONFIG=$RUN/kubeconfig

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
say() { printf '%6.1fs  %s\n' "$(elapsed)" "$*"; }

STARTED_AT=$EPOCHREALTIME
elapsed() { awk -v a="$STARTED_AT" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'; }

# Nodes without kubelets: kwok plays them. Sourced.

start_fake_nodes() { # how many
    [[ -e $PKI/kwok.kubeconfig ]] || { certificate kwok /O=system:masters/CN=kwok && kubeconfig kwok "$PKI/kwok.kubeconfig"; }
    for ((number = 1; number <= $1; number++)); do
        cat <<END
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "fake-$number", "annotations": {"kwok.x-k8s.io/node": "fake"}}}
END
    done | kubectl apply --filename - >/dev/null
    start kwok "$BIN/kwok" --kubeconfig "$PKI/kwok.kubeconfig" --config "$HERE/config/kwok.yaml" \
        --manage-nodes-with-annotation-selector kwok.x-k8s.io/node=fake --server-address "$CONTROL_PLANE:0"
    wait_for 60 kwok kubectl wait --for condition=Ready --timeout 1s nodes --all
    say "$1 fake nodes are ready"
}

# etcd, the API server, the controller manager and the scheduler. None needs root. Sourced.

CONTROL_PLANE_PROCESSES=(kube-scheduler kube-controller-manager kube-apiserver etcd) # in the order of stopping

AUDIT=() # more arguments of the API server

start_control_plane() {
    local etcd=http://$CONTROL_PLANE:$ETCD_PORT etcd_peer=http://$CONTROL_PLANE:$ETCD_PEER_PORT
    mkdir -p -m 700 "$RUN/etcd"
    start etcd "$BIN/etcd" --data-dir "$RUN/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls "$etcd" --advertise-client-urls "$etcd" \
        --listen-peer-urls "$etcd_peer" --initial-advertise-peer-urls "$etcd_peer" --initial-cluster "default=$etcd_peer"
    wait_for 30 etcd curl --silent --fail "$etcd/health"
    start kube-apiserver "$BIN/kube-apiserver" --etcd-servers "$etcd" \
        --bind-address "$CONTROL_PLANE" --advertise-address "$CONTROL_PLANE" --secure-port "$API_SERVER_PORT" \
        --endpoint-reconciler-type none --service-cluster-ip-range "$SERVICE_CIDR" \
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
        --client-ca-file "$PKI/ca.crt" --tls-cert-file "$PKI/api-server.crt" --tls-private-key-file "$PKI/api-server.key" \
        --service-account-issuer https://kubernetes.default.svc \
        --service-account-key-file "$PKI/service-account.pub" --service-account-signing-key-file "$PKI/service-account.key" \
        --kubelet-certificate-authority "$PKI/ca.crt" --kubelet-preferred-address-types Hostname \
        --kubelet-client-certificate "$PKI/api-server-to-kubelet.crt" --kubelet-client-key "$PKI/api-server-to-kubelet.key" \
        "${AUDIT[@]}"
    wait_for 60 kube-apiserver api_server_is_ready
    say 'kube-apiserver is ready'
    start kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig "$PKI/controller-manager.kubeconfig" \
        --bind-address "$CONTROL_PLANE" --secure-port "$CONTROLLER_MANAGER_PORT" --leader-elect=false \
        --service-account-private-key-file "$PKI/service-account.key" --root-ca-file "$PKI/ca.crt" \
        --kube-api-qps 500 --kube-api-burst 500 `# with the default of 20 its own start takes 5 s` \
        --use-service-account-credentials --flex-volume-plugin-dir "$RUN/volume-plugins"
    start kube-scheduler "$BIN/kube-scheduler" --kubeconfig "$PKI/scheduler.kubeconfig" \
        --bind-address "$CONTROL_PLANE" --secure-port "$SCHEDULER_PORT" --leader-elect=false \
        --kube-api-qps 500 --kube-api-burst 500
}

# Pods are refused until their namespace has its service account.
wait_for_control_plane() {
    wait_for 60 kube-controller-manager kubectl get serviceaccount default
    say 'pods are accepted'
}

kubectl() { "$BIN/kubectl" --kubeconfig "$ADMIN_KUBECONFIG" "$@"; }

api_server_is_ready() {
    curl --silent --fail --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" \
        "https://$CONTROL_PLANE:$API_SERVER_PORT/readyz"
}

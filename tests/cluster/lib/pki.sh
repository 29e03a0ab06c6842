# One authority, one certificate per component, and the kubeconfig files made of them. Sourced.

PKI=$RUN/pki

make_pki() {
    [[ -e $PKI/ca.crt ]] && return
    mkdir -p -m 700 "$PKI"
    new_key ca
    openssl req -x509 -new -key "$PKI/ca.key" -subj /CN=windlass-cluster -days 30 -out "$PKI/ca.crt"
    openssl genrsa -out "$PKI/service-account.key" 2048 2>/dev/null
    openssl rsa -in "$PKI/service-account.key" -pubout -out "$PKI/service-account.pub" 2>/dev/null
    certificate api-server /CN=kube-apiserver \
        "IP:$CONTROL_PLANE,IP:${SERVICE_CIDR%.*}.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
    certificate api-server-to-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
    certificate admin /O=system:masters/CN=admin
    certificate controller-manager /CN=system:kube-controller-manager
    certificate scheduler /CN=system:kube-scheduler
    kubeconfig admin "$ADMIN_KUBECONFIG"
    kubeconfig controller-manager "$PKI/controller-manager.kubeconfig"
    kubeconfig scheduler "$PKI/scheduler.kubeconfig"
}

# The API server calls a node by its name, so the name is the loopback address and the certificate says so.
make_kubelet_pki() { # address
    [[ -e $PKI/kubelet-$1.crt ]] && return
    certificate "kubelet-$1" "/O=system:nodes/CN=system:node:$1" "IP:$1"
    kubeconfig "kubelet-$1" "$PKI/kubelet-$1.kubeconfig"
}

new_key() { # name
    openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/$1.key"
}

certificate() { # name subject [alternative-names]
    local extensions='extendedKeyUsage=clientAuth,serverAuth'
    [[ -n ${3:-} ]] && extensions+=$'\n'"subjectAltName=$3"
    new_key "$1"
    openssl req -new -key "$PKI/$1.key" -subj "$2" |
        openssl x509 -req -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -days 30 -set_serial "0x$(openssl rand -hex 8)" \
            -extfile <(echo "$extensions") -out "$PKI/$1.crt" 2>/dev/null
}

kubeconfig() { # certificate file
    touch "$2"
    chmod 600 "$2"
    cat >"$2" <<END
apiVersion: v1
kind: Config
current-context: windlass-cluster
clusters:
  - name: windlass-cluster
    cluster:
      server: https://$CONTROL_PLANE:$API_SERVER_PORT
      certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
  - name: $1
    user:
      client-certificate-data: $(base64 -w0 "$PKI/$1.crt")
      client-key-data: $(base64 -w0 "$PKI/$1.key")
contexts:
  - name: windlass-cluster
    context: { cluster: windlass-cluster, user: $1 }
END
}

#!/usr/bin/env bash
# Builds everything the cluster runs: programs into bin/, images into images/built (both link into the cache).
# Only the first call on a machine takes long. Wants root once, for Debian packages that are missing.
#
#   build.sh              everything
#   build.sh --programs   no images (enough for up.sh --control-plane-only)
#   build.sh --s3         the S3 server of the log archive's tests alone, which needs neither root nor a cluster
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/lib/settings.sh"
source "$here/lib/go-programs.sh"
source "$here/lib/packages.sh"
source "$here/lib/images.sh"

case ${1:-} in
    '') with_images=yes ;;
    --programs) with_images=no ;;
    --s3) with_images=no ;;
    *) die "unknown argument $1" ;;
esac

if [[ ${1:-} == --s3 ]]; then
    build_programs versitygw '-s -w' versitygw=github.com/versity/versitygw/cmd/versitygw
    say "built: $BIN"
    exit
fi

kubernetes=$(module_version kubernetes k8s.io/kubernetes) # v1.36.3: only go.mod says which
IFS=. read -r major minor _ <<<"${kubernetes#v}"
version=k8s.io/component-base/version
build_programs etcd '-s -w' etcd=go.etcd.io/etcd/server/v3
build_programs kubernetes "-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=$major -X $version.gitMinor=$minor" \
    kube-apiserver=k8s.io/kubernetes/cmd/kube-apiserver \
    kube-controller-manager=k8s.io/kubernetes/cmd/kube-controller-manager \
    kube-scheduler=k8s.io/kubernetes/cmd/kube-scheduler \
    kubelet=k8s.io/kubernetes/cmd/kubelet \
    kubectl=k8s.io/kubernetes/cmd/kubectl
build_programs kwok '-s -w' kwok=sigs.k8s.io/kwok/cmd/kwok
helm=helm.sh/helm/v3 # which takes the version of Kubernetes that it renders for from its linker, as its own Makefile does
build_programs helm "-s -w -X $helm/internal/version.version=$(module_version helm $helm) -X $helm/pkg/chartutil.k8sVersionMajor=$major \
    -X $helm/pkg/chartutil.k8sVersionMinor=$minor -X $helm/pkg/lint/rules.k8sVersionMajor=$major -X $helm/pkg/lint/rules.k8sVersionMinor=$minor" \
    helm=helm.sh/helm/v3/cmd/helm

if [[ $with_images == yes ]]; then
    install_packages containerd runc containernetworking-plugins busybox-static mmdebstrap gcc libc6-dev
    build_images
fi
say "built: $BIN"

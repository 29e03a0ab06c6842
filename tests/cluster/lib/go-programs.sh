# Builds the programs of a Go module of tools/ once per machine and links them into bin/. Sourced.

GO_BUILD_FLAGS=(-trimpath -buildvcs=false)

# Whatever can change the result is in the key.
module_key() { # module-folder ldflags
    { go version; go env GOARCH GOAMD64; printf '%s\n' "${GO_BUILD_FLAGS[@]}" "$2"; cat "$1/go.mod" "$1/go.sum"; } | sha256sum | cut -c1-16
}

module_version() { # module dependency
    awk -v module="$2" '$1 == "require" { $1 = ""; $0 = $0 } $1 == module { print $2; exit }' "$HERE/tools/$1/go.mod"
}

# build_programs MODULE LDFLAGS NAME=PACKAGE...
build_programs() {
    local module=$1 ldflags=$2 source=$HERE/tools/$1 cached= name package
    shift 2
    mkdir -p "$BIN"
    for program in "$@"; do
        name=${program%%=*} package=${program#*=}
        if [[ -x ${KUBEBUILDER_ASSETS:-}/$name ]]; then # where envtest keeps its programs
            ln -sfn "$KUBEBUILDER_ASSETS/$name" "$BIN/$name"
            continue
        fi
        if [[ -z ${cached:-} ]]; then
            cached=$CACHE/$module-$(module_key "$source" "$ldflags")
            mkdir -p "$cached"
        fi
        if [[ ! -x $cached/$name ]]; then
            say "building $name"
            (cd "$source" && CGO_ENABLED=0 GOTOOLCHAIN=local nice -n 19 \
                go build -mod=readonly "${GO_BUILD_FLAGS[@]}" -ldflags "$ldflags" -o "$cached/$name.part" "$package")
            mv "$cached/$name.part" "$cached/$name" # so that an interrupted build leaves no half program
        fi
        ln -sfn "$cached/$name" "$BIN/$name"
    done
}

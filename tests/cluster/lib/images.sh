# Container images without a registry: each is a folder, packed as the one layer of a `docker save` archive. Sourced.
#
# The programs come from this machine's Debian, so the tags name what a pod asks for, not an upstream release.

IMAGES=$TARGET/images # links into the cache

build_images() {
    image pause:local pause_root '["/pause"]'
    image busybox:1.36 busybox_root '["sh"]'
    image python:3 python_root '["python3"]'
}

pause_root() {
    gcc -Os -static -s -o "$1/pause" "$HERE/images/pause.c"
}

busybox_root() {
    mkdir -p "$1/bin"
    cp "$(command -v busybox)" "$1/bin/busybox"
    for applet in $("$1/bin/busybox" --list); do
        [[ $applet == busybox ]] || ln -s busybox "$1/bin/$applet"
    done
    add_accounts "$1"
}

python_root() {
    nice -n 19 mmdebstrap --quiet --variant=extract --include=python3,python-is-python3,dash,coreutils,grep,sed \
        bookworm "$1/unpacked" 2>/dev/null # warns that it mounts neither proc nor sys
    mv "$1/unpacked"/* "$1"
    rm -rf "$1/unpacked" "$1"/usr/share/{doc,man,locale,lintian} "$1"/var/{lib,cache}/*
    # Without compiled modules every `python3` in a pod would compile the ones that it imports. By hash, since packing resets times.
    nice -n 19 chroot "$1" python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.11
    add_accounts "$1"
}

add_accounts() {
    mkdir -p "$1"/{etc,root,proc,sys,dev}
    mkdir -p -m 1777 "$1/tmp"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$1/etc/passwd"
    printf 'root:x:0:\nnobody:x:65534:\n' >"$1/etc/group"
}

# image NAME FILL COMMAND: builds NAME once; FILL is a function that fills the folder it is given.
image() {
    local name=$1 fill=$2 command=$3 file=${1/:/-}.tar cached work
    cached=$CACHE/images-$(images_key)/$file
    if [[ ! -e $cached ]]; then
        say "building image $name"
        work=$cached.work
        rm -rf "$work"
        mkdir -p "$work/root"
        "$fill" "$work/root"
        pack_image "$name" "$work" "$command" "$cached.part"
        mv "$cached.part" "$cached"
        rm -rf "$work"
    fi
    mkdir -p "$IMAGES"
    ln -sfn "$cached" "$IMAGES/$file"
}

images_key() {
    { cat "$HERE/lib/images.sh" "$HERE/images/pause.c"; dpkg-query -W busybox-static python3; } | sha256sum | cut -c1-16
}

# pack_image NAME WORK COMMAND ARCHIVE: packs WORK/root. The same root gives the same bytes.
pack_image() {
    local name=$1 work=$2 command=$3 archive=$4 id
    mkdir "$work/archive"
    tar --create --file "$work/archive/layer.tar" --directory "$work/root" \
        --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner .
    id=$(sha256sum "$work/archive/layer.tar" | cut -d' ' -f1)
    jq --null-input --compact-output --arg layer "sha256:$id" --argjson command "$command" '{
        architecture: "amd64", os: "linux", created: "1970-01-01T00:00:00Z",
        config: {Cmd: $command, Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        rootfs: {type: "layers", diff_ids: [$layer]}
    }' >"$work/archive/config.json"
    jq --null-input --compact-output --arg name "$name" \
        '[{Config: "config.json", RepoTags: [$name], Layers: ["layer.tar"]}]' >"$work/archive/manifest.json"
    tar --create --file "$archive" --directory "$work/archive" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner .
}

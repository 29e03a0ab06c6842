#!/usr/bin/env bash
# Makes the image of the Dockerfile without Docker: an archive for `docker load`, `ctr images import` or a registry's tool, from
# programs that are built already and the libraries of this machine that they need.
#
#   deploy/image.sh ARCHIVE [PROGRAMS] [NAME]   PROGRAMS: target/release; NAME: windlass:local
set -euo pipefail
archive=${1:?where the archive goes} programs=${2:-} name=${3:-windlass:local}
repository=$(cd "$(dirname "$0")/.." && pwd)
programs=${programs:-$repository/target/release}
# shellcheck source=/dev/null
for part in settings images; do source "$repository/tests/cluster/lib/$part.sh"; done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{usr/local/bin,etc/ssl/certs,var/lib/windlass}
add_accounts "$root"
echo 'windlass:x:65532:65532:windlass:/var/lib/windlass:/bin/false' >>"$root/etc/passwd"
echo 'windlass:x:65532:' >>"$root/etc/group"
for program in windlass windlass-scheduler windlass-executor windlass-log-relay; do
    [[ -x $programs/$program ]] || die "no $program in $programs: build it first"
    strip --strip-debug -o "$root/usr/local/bin/$program" "$programs/$program"
    chmod 755 "$root/usr/local/bin/$program"
    # Lines of ldd are `NAME => PATH (ADDRESS)`, and one with the path of the loader.
    ldd "$programs/$program" | grep -o '/[^ ]*' | while read -r library; do
        [[ -e $root$library ]] || install -D -m 755 "$(realpath "$library")" "$root$library"
    done
done
[[ ! -e /etc/ssl/certs/ca-certificates.crt ]] || cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
pack_image "$name" "$work" '["windlass"]' "$work/plain.tar"
# As in the Dockerfile: not root.
jq --compact-output '.config.User = "65532:65532"' "$work/archive/config.json" >"$work/config.json"
mv "$work/config.json" "$work/archive/config.json"
tar --create --file "$archive" --directory "$work/archive" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner .
say "$name in $archive"

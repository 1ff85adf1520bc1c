#!/usr/bin/env bash
# Builds the images without a Docker engine, and uses each for what it is for: docker/verify-images.sh [cpu|gpu|train]…, all if
# none is named. Needs root, Debian's buildah and debootstrap, 3 GB of disk for cpu, and for all 30 GB with overlay, more with vfs.
#
#   WORK             directory in which all is kept while it runs, in a folder of its own (/var/tmp)
#   STORAGE_DRIVER   vfs (the default) works everywhere; overlay, where the kernel lets root have it, copies less
#   SUITE            Debian release of the base (bookworm)
#   CA               certificates that the build trusts, where a proxy signs what it passes on ($SSL_CERT_FILE)
#   BUNDLE           bundle that the image cpu serves, where the image gpu has not made one: the default makes one with RANKONE
#   RANKONE          the command on this machine (.venv/bin/rankone)
set -euo pipefail
cd "$(dirname "$0")/.."

work=${WORK:-/var/tmp}/rankone-verify
volumes=$work/volumes
declare -A roots

main() {
    mkdir -p "$work"
    trap clean EXIT
    make_base
    for target in "$@"; do
        say "building $target"
        build "$target"
        open "$target"
        check_content "$target"
    done
    for target in gpu train cpu; do # the first makes the bundle that the others find
        [ -z "${roots[$target]:-}" ] || "use_$target"
    done
    say "all of it works: $*"
}

say() { printf '\n== %s  [%s s]\n' "$*" "$SECONDS"; }

in_storage() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver "${STORAGE_DRIVER:-vfs}" "$@"; }

make_base() {
    say "base: Debian ${SUITE:-bookworm} by debootstrap"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "${SUITE:-bookworm}" "$work/base" >"$work/base.log"
    rm -rf "$work"/base/var/cache/apt/* "$work"/base/var/lib/apt/lists/*
    local container
    container=$(in_storage from scratch)
    in_storage add --quiet "$container" "$work/base" / >/dev/null
    in_storage commit --quiet --rm "$container" rankone-base >/dev/null
    rm -rf "$work/base"
}

build() {
    local trusted=() ca=${CA:-${SSL_CERT_FILE:-}}
    [ -z "$ca" ] || trusted=(--secret "id=ca,src=$ca")
    in_storage build --quiet --isolation chroot --format docker --layers=false --pull=never \
        --build-arg BASE=localhost/rankone-base --build-arg REVISION="$(git rev-parse HEAD)" "${trusted[@]}" \
        --file docker/Dockerfile --target "$1" --tag "rankone:$1" . >"$work/$1.log" 2>&1 || { tail -n 40 "$work/$1.log"; return 1; }
}

open() { roots[$1]=$(in_storage mount "$(in_storage from --pull=never "localhost/rankone:$1")"); }

check_content() {
    local root=${roots[$1]}
    echo "  size: $(in_storage images --format '{{.Size}}' "localhost/rankone:$1"), of which the base $(in_storage images --format '{{.Size}}' localhost/rankone-base)"
    echo "  labels: $(described "$1" '{{index .OCIv1.Config.Labels "org.opencontainers.image.version"}} {{index .OCIv1.Config.Labels "org.opencontainers.image.revision"}}')"
    ! find "$root" -xdev \( -name .cache -o -type f -perm /111 \( -name 'gcc*' -o -name 'cc1*' -o -name uv \) \) -print | grep . ||
        { echo "a compiler, a cache or a tool was left in the image"; return 1; }
    [ "$1" != cpu ] || [ "$(du --summarize --block-size=1M --one-file-system "$root" | cut -f 1)" -lt 700 ] || { echo "over 700 MB"; return 1; }
}

described() { in_storage inspect --type image --format "$2" "localhost/rankone:$1"; }

# Runs a command in an image as compose does: its user, its variables, no privileges, its root read-only, /tmp in memory.
# A network of its own is all that is missing. Variables and command are those of env(1).
inside() {
    local target=$1 environment
    shift
    mapfile -t environment < <(described "$target" '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' | sed '/^$/d')
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount --pid --fork --kill-child bash -euc '
        root=$1 volumes=$2 user=$3 bundles=$4
        shift 4
        mount --bind "$root" "$root"
        mount --rbind /dev "$root/dev"
        mount -t proc proc "$root/proc"
        mount -t tmpfs tmpfs "$root/tmp"
        mount --bind "$volumes/bundles" "$root/bundles"
        mount --bind "$volumes/data" "$root/data"
        mount --bind "$volumes/runs" "$root/runs"
        mount -o remount,bind,"$bundles" "$root/bundles"
        mount -o remount,bind,ro "$root"
        exec chroot --userspec="$user" --groups= "$root" setpriv --no-new-privs env -i "$@"
    ' - "${roots[$target]}" "$volumes" "$(described "$target" '{{.OCIv1.Config.User}}')" "${bundles:-ro}" \
        --chdir="$(described "$target" '{{.OCIv1.Config.WorkingDir}}')" "${environment[@]}" "$@"
}

make_volumes() {
    [ ! -d "$volumes" ] || return 0
    install --directory --owner 10001 --group 10001 "$volumes"/{bundles,data,runs}
}

use_gpu() {
    make_volumes
    say "gpu: makes the first bundle, as the service init does"
    bundles=rw inside gpu rankone bundle init /bundles --fallback demo --work /runs/init
    if [ ! -e /dev/nvidia0 ]; then
        say "gpu: refuses to start without a GPU, and says why"
        ! inside gpu RANKONE_ALLOW_ANONYMOUS=true rankone serve >"$work/serve.log" 2>&1 || { echo "it started"; return 1; }
        grep "device 'cuda' was asked for" "$work/serve.log"
    fi
    for engine in onnx torchscript export; do
        serve gpu RANKONE_DEVICE=cpu RANKONE_ENGINE=$engine
    done
}

use_train() {
    make_volumes
    say "train: both phases in small, and the bundle that comes of it"
    inside train rankone train photos /runs/mine --recipe demo --size 64 --phase1.epochs 5 --phase2.epochs 1
    bundles=rw inside train rankone export /runs/mine photos /bundles/mine
}

use_cpu() {
    make_volumes
    if [ -n "${BUNDLE:-}" ]; then
        cp -r "$BUNDLE" "$volumes/bundles/first"
    elif [ ! -d "$volumes/bundles/first" ]; then
        "${RANKONE:-.venv/bin/rankone}" bundle init "$volumes/bundles" --recipe demo --weights random --work "$work/init"
    fi
    say "cpu: says what it leaves out"
    ! inside cpu rankone train photos /runs/none || { echo "it trained"; return 1; }
    for engine in onnx openvino auto; do
        serve cpu RANKONE_ENGINE=$engine
    done
}

# Starts what the image starts, waits until its health check passes, posts an image, and ends it as `docker stop` does.
serve() {
    local target=$1 port started status=0 command
    shift
    say "$target: serves $*"
    mapfile -t command < <(described "$target" '{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}{{range .OCIv1.Config.Cmd}}{{println .}}{{end}}' | sed '/^$/d')
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    inside "$target" RANKONE_PORT="$port" RANKONE_ALLOW_ANONYMOUS=true "$@" "${command[@]}" >"$work/serve.log" 2>&1 &
    started=$!
    until inside "$target" RANKONE_PORT="$port" python /opt/healthcheck.py >"$work/health.log" 2>&1; do
        kill -0 "$started" 2>/dev/null || { cat "$work/serve.log"; return 1; }
        sleep 1
    done
    echo "  healthy: $(cat "$work/health.log")"
    inside "$target" RANKONE_PORT="$port" python - <docker/smoke.py
    kill -TERM "$(pgrep --parent "$(pgrep --parent "$started" unshare)")"
    wait "$started" || status=$?
    echo "  ended by SIGTERM with status $status"
    [ "$status" = 0 ]
}

clean() {
    rm -rf "$volumes"
    in_storage rm --all >/dev/null 2>&1 || true
    in_storage rmi --all --force >/dev/null 2>&1 || true
    rm -rf "$work"
}

[ $# -gt 0 ] || set -- cpu gpu train
main "$@"

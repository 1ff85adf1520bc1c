# shellcheck shell=bash
# To be sourced: `start_engine FOLDER` leaves `docker compose` working with an engine, the host's or one of its own that
# `stop_engine` ends, or fails and leaves a sentence in $engine_fault. As root it installs what is missing, from Debian:
# `docker.io`, and compose and buildx of trixie, where the release is older.

start_engine() {
    engine_folder=$1
    has_compose && docker info >/dev/null 2>&1 && return
    [ "$(id -u)" = 0 ] || { engine_fault="no Docker engine runs, and only root can start one"; return 1; }
    type -P dockerd iptables >/dev/null || install_packages docker.io iptables || return 1
    mkdir -p "$engine_folder"
    export DOCKER_CONFIG=$engine_folder/client
    has_compose || unpack_plugins || return 1
    docker info >/dev/null 2>&1 && return
    export DOCKER_HOST=unix://$engine_folder/socket
    dockerd --host "$DOCKER_HOST" --data-root "$engine_folder/data" --exec-root "$engine_folder/exec" \
        --pidfile "$engine_folder/pid" >"$engine_folder/dockerd.log" 2>&1 &
    engine=$!
    until docker info >/dev/null 2>&1; do
        kill -0 "$engine" 2>/dev/null || { engine_fault="dockerd does not start here: $(tail -n 1 "$engine_folder/dockerd.log")"; return 1; }
        sleep 0.5
    done
}

stop_engine() {
    [ -z "${engine:-}" ] || { kill "$engine" && wait "$engine"; } || true
}

has_compose() { docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1; }

install_packages() {
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"; } >/dev/null 2>&1 ||
        { engine_fault="apt-get cannot install $*"; return 1; }
}

# The plugins alone, from packages of a newer release, which are not installed.
unpack_plugins() {
    local apt=$engine_folder/apt plugins=$DOCKER_CONFIG/cli-plugins
    mkdir -p "$apt"/{lists,cache}/partial "$apt/cache/archives/partial" "$plugins"
    local mirror # the one that this machine uses
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | head -n 1)
    echo "deb $mirror trixie main" >"$apt/sources.list"
    local options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache")
    (cd "$apt" && apt-get "${options[@]}" update && apt-get "${options[@]}" download docker-compose docker-buildx) >/dev/null 2>&1 ||
        { engine_fault="docker compose and buildx cannot be had"; return 1; }
    for package in "$apt"/*.deb; do dpkg-deb --extract "$package" "$apt/root"; done
    cp "$apt"/root/usr/libexec/docker/cli-plugins/* "$plugins/"
}

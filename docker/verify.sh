#!/usr/bin/env bash
# Uses compose as docs/deploy.md says, on a real Docker engine: docker/verify.sh [all]. Needs root where no engine runs, this
# repository's .venv, and Debian's debootstrap for the images that cannot be pulled. Where no engine can be had, it says so
# and builds and runs the image `cpu` without one (docker/verify-images.sh); status 3: not even that could be done.
#
# Without `all`, a bundle is made on this machine, and the image `gpu` (8 GB, a quarter of an hour) is not built.
#
#   WORK             directory in which all is kept while it runs, in a folder of its own (/var/tmp)
#   SUITE            Debian release of the base (bookworm)
#   CA               certificates that the builds trust, where a proxy signs what it passes on ($SSL_CERT_FILE)
#   BUNDLE           bundle to serve; by default one is made
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=docker/engine.sh
. docker/engine.sh

work=${WORK:-/var/tmp}/rankone-compose
python=$PWD/.venv/bin/python
override=$work/override.yml

main() {
    rm -rf "$work" && mkdir -p "$work/secrets"
    trap clean EXIT
    start_engine "$work/engine" || {
        echo "compose is not verified: $engine_fault"
        type -P buildah debootstrap >/dev/null || { echo "nor are the images: buildah or debootstrap is missing"; exit 3; }
        exec docker/verify-images.sh cpu
    }
    prepare
    build
    lay_bundle
    from_nothing
    refused_setting
    observe
    upgrade
    sigterm_under_load
    killed
    full_volume
    say "all of it works"
}

say() { printf '\n== %s  [%s s]\n' "$*" "$SECONDS"; }

compose() { docker compose --project-name "${project:-rankone-verify}" --env-file "$work/env" --file docker-compose.yml --file "$override" "$@"; }

inspected() { docker inspect --format "$2" "$(compose ps --all --quiet "$1")"; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# The base and what stands in for images that cannot be pulled here, of Debian's packages; what is ours is built as always.
prepare() {
    say "compose $(docker compose version --short), engine $(docker version --format '{{.Server.Version}}')"
    port=$(free_port) prometheus_port=$(free_port) url=http://127.0.0.1:$port
    cat >"$work/env" <<EOF
COMPOSE_PROFILES=cpu
RANKONE_LISTEN=127.0.0.1:$port
RANKONE_INIT=$init
RANKONE_CA=${CA:-${SSL_CERT_FILE:-./docker/empty}}
RANKONE_KEYS_FILE=$work/secrets/keys.json
RANKONE_METRICS_KEY_FILE=$work/secrets/metrics-key
EOF
    local base
    base=$(sed -n 's/^ARG BASE=//p' docker/Dockerfile)
    pull "$base" || { make_base && base=rankone-base; }
    {
        echo "services:"
        for service in init check check-cpu service service-cpu; do
            echo "  $service: {build: {network: host, args: {BASE: $base, REVISION: \"\${REVISION:-one}\"}}}"
        done
        stand_in proxy nginx-light gettext-base
        stand_in prometheus prometheus "ports: [\"127.0.0.1:$prometheus_port:9090\"]"
    } >"$override"
    touch "$work/secrets/keys.json" "$work/secrets/metrics-key"
    docker compose config --quiet && docker compose --profile '*' config --quiet
}

pull() { timeout 60 docker pull --quiet "$1" >/dev/null 2>&1; }

make_base() {
    command -v debootstrap >/dev/null || install_packages debootstrap
    docker image inspect rankone-base >/dev/null 2>&1 && return
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "${SUITE:-bookworm}" "$work/base" >"$work/base.log"
    rm -rf "$work"/base/var/cache/apt/* "$work"/base/var/lib/apt/lists/*
    tar --directory "$work/base" --create . | docker import - rankone-base >/dev/null
    rm -rf "$work/base"
}

# Prints the lines of the override for a service whose image is somebody else's.
stand_in() {
    local service=$1 image package=$2 more=${3:-}
    [[ $more == ports:* ]] || package="$package $more" more=
    image=$(docker compose --profile '*' config --format json | image_of "$service")
    if pull "$image"; then
        echo "  $service: {$more}"
        return
    fi
    make_base
    docker build --quiet --network host --tag "rankone-verify-$service" --build-arg PACKAGES="$package wget" - \
        <"docker/stand-ins/$service" >"$work/$service.log" 2>&1 || { tail -n 20 "$work/$service.log" >&2; return 1; }
    echo "  $service: {image: rankone-verify-$service, pull_policy: never${more:+, $more}}"
}

build() {
    say "building for the profile cpu"
    [ "$init" = cpu ] || compose build --quiet init
    compose build --quiet service-cpu
    docker images --format '  {{.Repository}}:{{.Tag}} {{.Size}}' rankone
}

# A key as docs/deploy.md makes it, and the bundle of a host that has one; else `init` makes it.
lay_bundle() {
    local add=(run --rm --no-deps --user "$(id -u)" --volume "$work/secrets:/secrets" init keys add --file /secrets/keys.json)
    rm "$work/secrets/keys.json"
    key=$(compose "${add[@]}" verify --scope read write 2>/dev/null | tail -n 1 | tr -d '\r')
    compose "${add[@]}" prometheus --scope read 2>/dev/null | tail -n 1 | tr -d '\r\n' >"$work/secrets/metrics-key"
    chmod a+r "$work"/secrets/*
    [ "$init" = cpu ] || return 0
    if [ -z "${BUNDLE:-}" ]; then
        say "a bundle, made on this machine"
        "${python%python}rankone" bundle init "$work/bundles" --recipe demo --weights random --work "$work/init" >"$work/init.log"
        BUNDLE=$work/bundles/first
    fi
    compose run --rm --no-deps --volume "$BUNDLE:/own:ro" --entrypoint cp init -r /own /bundles/own
}

up() { compose up --detach --wait --wait-timeout 900 "$@" >"$work/up.log" 2>&1 || { tail -n 40 "$work/up.log"; compose logs --tail 20; return 1; }; }

count() { "$python" docker/load.py "$url" "$key" count "$@"; }

from_nothing() {
    say "up: from nothing to a found image, through the proxy"
    local started=$SECONDS
    up
    echo "  healthy after $((SECONDS - started)) s; $(compose ps --format '{{.Service}} {{.Status}}' | paste -sd ';')"
    compose exec -T --env KEY="$key" service-cpu python - <docker/smoke.py
    [ "$(curl --silent --output /dev/null --write-out '%{http_code}' "$url/info")" = 401 ] || { echo "it answers without a key"; return 1; }
    "$python" docker/load.py "$url" "$key" found
}

refused_setting() {
    say "a refused setting: said once, nothing restarts for ever"
    local refused=(--file "$work/refused.yml")
    echo 'services: {check-cpu: &with {environment: {RANKONE_MAX_QUEUE: "1"}}, service-cpu: *with}' >"$work/refused.yml"
    ! compose "${refused[@]}" run --rm --no-deps check-cpu >"$work/refused.log" 2>&1 || { echo "the check took it"; return 1; }
    [ "$(inspected service-cpu '{{.State.Running}}')" = true ]
    ! compose "${refused[@]}" up --detach >>"$work/refused.log" 2>&1 || { echo "it was started"; return 1; }
    compose logs --no-log-prefix check-cpu 2>/dev/null | grep --max-count 1 "max_queue (1) must hold"
    [ "$(inspected service-cpu '{{.State.Status}} {{.RestartCount}}')" = "created 0" ]
    up
}

# Grafana would send these queries to Prometheus. Its image is only to be had where it can be pulled.
observe() {
    say "observe: Prometheus answers every query of the dashboard and has the rules"
    local services=(prometheus)
    ! pull "$(docker compose --profile '*' config --format json | image_of grafana)" || services+=(grafana)
    [ ${#services[@]} = 2 ] || echo "  grafana: its image cannot be pulled here, and Debian has no package; only its queries are checked"
    COMPOSE_PROFILES=cpu,observe compose up --detach --wait "${services[@]}" >"$work/up.log" 2>&1 || { cat "$work/up.log"; return 1; }
    "$python" docker/load.py "$url" "$key" found # its parts are series only then
    "$python" docker/queries.py "http://127.0.0.1:$prometheus_port" docker/grafana/dashboards/rankone.json
    COMPOSE_PROFILES=cpu,observe compose rm --stop --force "${services[@]}" >/dev/null 2>&1
}

image_of() { python3 -c 'import json, sys; print(json.load(sys.stdin)["services"][sys.argv[1]]["image"])' "$1"; }

upgrade() {
    say "upgrade: a new image, the volumes kept"
    local before items
    before=$(inspected service-cpu '{{.Image}}') items=$(count)
    REVISION=two compose build --quiet service-cpu
    up
    [ "$(inspected service-cpu '{{.Image}}')" != "$before" ] || { echo "the container has the old image"; return 1; }
    [ "$(count)" = "$items" ]
    echo "  $items items before and after"
}

# Every acknowledged item is there afterwards; nobody gets an answer that is no answer.
sigterm_under_load() {
    say "SIGTERM under load"
    under_load compose stop service-cpu
    [ "$(inspected service-cpu '{{.State.ExitCode}}')" = 0 ] || { echo "it did not end by itself"; return 1; }
}

killed() {
    say "SIGKILL under load, then down and up"
    under_load compose kill --signal KILL service-cpu
    compose down >/dev/null 2>&1
    up
    count "$work/acknowledged"
}

under_load() {
    "$python" docker/load.py "$url" "$key" add "$work/acknowledged" &
    local load=$! started
    until [ -e "$work/acknowledged.begun" ]; do
        kill -0 "$load" || return 1
        sleep 0.2
    done
    rm "$work/acknowledged.begun"
    started=$SECONDS
    "$@" >/dev/null 2>&1
    echo "  ended after $((SECONDS - started)) s"
    wait "$load"
    up
    count "$work/acknowledged"
}

# A second project whose volume `data` has room for some hundred items.
full_volume() {
    say "a full volume"
    compose down >/dev/null 2>&1
    sed 's/^services:/volumes: {data: {driver_opts: {type: tmpfs, device: tmpfs, o: "size=12m,uid=10001,gid=10001"}}}\n&/' "$override" >"$work/full.yml"
    override=$work/full.yml project=rankone-verify-full
    [ "$init" != cpu ] || compose run --rm --no-deps --volume "$BUNDLE:/own:ro" --entrypoint cp init -r /own /bundles/own
    [ "$init" = cpu ] || compose run --rm --no-deps --volume rankone-verify_bundles:/own:ro --entrypoint cp init -r /own/first /bundles/own
    up
    "$python" docker/load.py "$url" "$key" fill "$work/acknowledged-full"
    count "$work/acknowledged-full"
}

clean() {
    [ -e "$override" ] || return 0
    for project in rankone-verify rankone-verify-full; do
        compose --profile '*' down --volumes --timeout 1 >/dev/null 2>&1 || true
    done
    stop_engine
    rm -rf "$work"
}

init=cpu
[ "${1:-}" != all ] || init=gpu
main

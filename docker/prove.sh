# What docker/verify.sh and docker/engine.sh have in common: sourced by both, in the root of the repository.
# shellcheck shell=bash

# Begins the script again in a network of its own, where the ports of the example are free, and there sets `binary`: the
# first argument, or one that is built as docker/Dockerfile builds it, which takes minutes.
alone() { # "$@"
    if [ "${1:-}" != --inside ]; then
        binary=${1:-}
        if [ -z "$binary" ]; then
            binary=$(mktemp)
            trap 'rm -f "$binary"' EXIT
            docker/build.sh "$binary"
        fi
        unshare --net "$0" --inside "$(realpath "$binary")"
        exit
    fi
    binary=$2
    ip link set lo up
}

ok() { printf 'ok: %s\n' "$*"; }

# The script says what `fail` does.
until_true() { # WHAT COMMAND…
    local what=$1 end=$((SECONDS + 15))
    shift
    until "$@" > /dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "still not so: $what"
        sleep 0.05
    done
}

# The mounts of docker/compose.yaml below `work`, with names that resolve here.
lay_out_example() {
    local build name port admin
    mkdir -p "$work/conf" "$work/state"
    chown 65532:65532 "$work/state"
    chmod 0700 "$work/state"
    sed 's/shop-blue:3000/127.0.0.1:3001/; s/shop-green:3000/127.0.0.1:3002/' \
        docker/example/switchback/switchback.yaml > "$work/conf/switchback.yaml"
    for build in blue:3001:9911 green:3002:9912; do
        IFS=: read -r name port admin <<< "$build"
        mkdir -p "$work/$name"
        sed "s/0.0.0.0:3000/127.0.0.1:$port/" "docker/example/$name/switchback.yaml" > "$work/$name/switchback.yaml"
        printf 'admin: { bind: "127.0.0.1:%s" }\n' "$admin" >> "$work/$name/switchback.yaml"
    done
}

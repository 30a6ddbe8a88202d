#!/usr/bin/env bash
# Proves the image where no container engine is at hand: exactly its files, in a root of their own, started as an engine
# would with `--read-only --cap-drop ALL --security-opt no-new-privileges`, as user 65532 and process 1.
#
#     docker/verify.sh [BINARY]
#
# Without BINARY it is built as docker/Dockerfile builds it (docker/build.sh), which takes minutes. Needs root (for the
# namespaces), util-linux, iproute2, python3 and curl. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

. docker/prove.sh
alone "$@"

work=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

fail() {
    printf 'FAILED: %s\n' "$*"
    for log in "$work"/*.log; do sed "s|^|    $(basename "$log") \| |" "$log"; done
    exit 1
}

docker/rootfs.sh "$binary" "$work/image"
echo "the files of the image:"
(cd "$work/image" && find . -mindepth 1 \( -type f -printf '  %M %5U %9s %P\n' \) -o \( -type d -empty -printf '  %M %5U         - %P/\n' \))
size=$(du -sm --apparent-size "$work/image" | cut -f1)
file -b "$binary" 2>/dev/null | cut -c1-120 || true
if ldd "$binary" 2>/dev/null | grep -q '=>'; then fail "the binary needs libraries that the image does not have"; fi
ok "static, $size MiB in all"

lay_out_example

engine=
start() { # NAME MOUNTS… -- COMMAND…
    local name=$1
    shift
    [ -d "$work/root.$name" ] || cp -a "$work/image" "$work/root.$name"
    unshare --mount --pid --ipc --uts --fork --kill-child \
        python3 docker/enter.py "$work/root.$name" "$@" 2>> "$work/$name.log" &
    engine=$!
    pids+=("$engine")
}
# The process that is 1 inside, as this namespace sees it.
first_of() { tr -d ' ' < "/proc/$1/task/$1/children"; }
shop() { curl -sS --max-time 5 "http://127.0.0.1:8080/$1"; }

for build in blue green; do
    start "$build" "/etc/switchback=$work/$build" -- /usr/local/bin/switchback run
done
start switchback "/etc/switchback=$work/conf" "/var/lib/switchback=$work/state:rw" -- /usr/local/bin/switchback run
switchback=$engine
until_true "ready" curl -fsS http://127.0.0.1:9900/readyz
first=$(first_of "$switchback")
grep -q "^NSpid:.*[[:space:]]1$" "/proc/$first/status" || fail "not process 1: $(grep NSpid "/proc/$first/status")"
ok "ready as process 1"
for line in "Uid:.65532.65532.65532.65532" "Gid:.65532.65532.65532.65532" "CapPrm:.0*$" "CapEff:.0*$" "CapBnd:.0*$" \
    "NoNewPrivs:.1"; do
    grep -q "^$line" "/proc/$first/status" || fail "$line: $(cat "/proc/$first/status")"
done
ok "user 65532, no capabilities and no way to any"

[ "$(shop x)" = blue ] || fail "not blue: $(shop x)"
ok "serves: $(shop x)"

# `docker exec`: beside it, in its namespaces.
inside() {
    SWITCHBACK_CONFIG=/etc/switchback nsenter --target "$first" --mount --pid --root --wd \
        --setuid 65532 --setgid 65532 /usr/local/bin/switchback "$@"
}
[ "$(inside healthcheck)" = ready ] || fail "healthcheck: $(inside healthcheck 2>&1)"
ok "healthcheck: $(inside healthcheck)"
inside switch shop green > /dev/null || fail "switch"
[ "$(shop x)" = green ] || fail "not green: $(shop x)"
ok "switch by command: $(shop x)"
inside rollback shop > /dev/null || fail "rollback"

# The deployment is an edit of the mounted directory.
sed -i 's/active: blue/active: green/' "$work/conf/switchback.yaml"
until_true "the edit is live" sh -c '[ "$(curl -sS http://127.0.0.1:8080/)" = green ]'
ok "switch by an edit of the mounted directory: $(shop x)"

if touch "/proc/$first/root/usr/local/bin/x" 2>/dev/null; then fail "the root file system can be written"; fi
ok "the root file system is read-only"
[ -s "$work/state/switchback.db" ] || fail "no state in the volume"
[ "$(stat -c %u:%a "$work/state/switchback.db")" = 65532:600 ] || fail "state: $(stat -c %u:%a "$work/state/switchback.db")"

# PID 1 duties: an orphan is adopted by process 1, which must not keep it as a zombie.
if command -v nsenter > /dev/null; then
    nsenter --target "$first" --pid sh -c 'sh -c "sleep 0.2" & exit' || fail "no orphan could be made"
    sleep 0.5
    zombies=$(ps -o stat=,ppid= -e | awk -v parent="$first" '$1 ~ /^Z/ && $2 == parent' | wc -l)
    [ "$zombies" = 0 ] && ok "no orphan stays behind as a zombie" || fail "$zombies zombies"
fi

# A crash: everything is as it was.
kill -9 "$first"
wait "$switchback" || true
start switchback "/etc/switchback=$work/conf" "/var/lib/switchback=$work/state:rw" -- /usr/local/bin/switchback run
switchback=$engine
until_true "ready again" curl -fsS http://127.0.0.1:9900/readyz
[ "$(shop x)" = green ] || fail "not green after a crash: $(shop x)"
ok "after kill -9 of process 1 the volume has its state: $(shop x)"

# `docker stop`.
began=$(date +%s%3N)
kill -TERM "$(first_of "$switchback")"
code=0
wait "$switchback" || code=$?
took=$(($(date +%s%3N) - began))
[ "$code" = 0 ] || fail "SIGTERM: exit code $code"
[ "$took" -lt 10000 ] || fail "SIGTERM: took $took ms"
ok "SIGTERM: exit code 0 after $took ms"
echo "the image holds"

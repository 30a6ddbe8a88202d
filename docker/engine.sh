#!/usr/bin/env bash
# The image under a real container engine: built by docker/Dockerfile's last stage, run with the flags of
# docs/deployment.md, asked, edited, switched, upgraded, killed and stopped.
#
#     docker/engine.sh [BINARY]
#
# ENGINE is the engine's command, `podman` unless it is set (for example ENGINE="podman --runtime runc
# --cgroup-manager=cgroupfs"). Without BINARY it is built as the Dockerfile's first stage builds it, but on this machine,
# so that no image has to be fetched: the engine must know `--build-context` (podman 4.2, Docker with BuildKit). Needs
# root, iproute2 and curl. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

. docker/prove.sh
alone "$@"
read -ra engine <<< "${ENGINE:-podman}"
engine() { "${engine[@]}" "$@"; }

image=switchback-engine-test:$$
names=(switchback-$$ blue-$$ green-$$)
work=$(mktemp -d)
cleanup() {
    for name in "${names[@]}"; do engine rm -f "$name" > /dev/null 2>&1 || true; done
    engine rmi -f "$image" > /dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT
fail() {
    printf 'FAILED: %s\n' "$*"
    for name in "${names[@]}"; do engine logs "$name" 2>&1 | tail -20 | sed "s|^|    $name \| |"; done
    exit 1
}

mkdir -p "$work/build"
docker/rootfs.sh "$binary" "$work/build/image"
isolation=()
case ${engine[0]} in *podman) isolation=(--isolation chroot --format docker) ;; esac
engine build "${isolation[@]}" --build-context "build=$work/build" -t "$image" -f docker/Dockerfile . > "$work/build.log" 2>&1 ||
    { tail -20 "$work/build.log"; fail "the image is not built"; }
ok "built by $(engine --version): $(($(engine image inspect --format '{{.Size}}' "$image") / 1048576)) MiB"

lay_out_example
chmod -R a+rX "$work"
limits=(--ulimit nofile=16384:16384 --ulimit nproc=4096:4096)
flags=(--network host "${limits[@]}" --read-only --cap-drop ALL --security-opt no-new-privileges)
for name in blue green; do
    engine run -d --name "$name-$$" "${flags[@]}" --no-healthcheck -v "$work/$name:/etc/switchback:ro" "$image" > /dev/null
done
proxy=${names[0]}
engine run -d --name "$proxy" "${flags[@]}" --no-healthcheck -v "$work/conf:/etc/switchback:ro" \
    -v "$work/state:/var/lib/switchback" "$image" > /dev/null
shop() { curl -sS --max-time 5 http://127.0.0.1:8080/; }
until_true "ready" curl -fsS http://127.0.0.1:9900/readyz
[ "$(shop)" = blue ] || fail "not blue: $(shop)"
ok "with ${flags[*]:2}: serves $(shop)"

first=$(engine inspect --format '{{.State.Pid}}' "$proxy")
for line in "Uid:.65532.65532.65532.65532" "Gid:.65532.65532.65532.65532" "CapEff:.0*$" "CapBnd:.0*$" "NoNewPrivs:.1" \
    "NSpid:.*[[:space:]]1$"; do
    grep -q "^$line" "/proc/$first/status" || fail "$line: $(cat "/proc/$first/status")"
done
ok "user 65532, process 1, no capabilities and no way to any"

inside() { engine exec "$proxy" /usr/local/bin/switchback "$@"; }
[ "$(inside healthcheck)" = ready ] || fail "healthcheck"
[ "$(engine image inspect --format '{{index .Config.Healthcheck.Test 1}}' "$image")" = /usr/local/bin/switchback ] ||
    fail "the image has no health check"
ok "exec switchback healthcheck: $(inside healthcheck)"
inside switch shop green > /dev/null || fail "switch"
[ "$(shop)" = green ] || fail "not green: $(shop)"
ok "exec switchback switch shop green: $(shop)"
inside rollback shop > /dev/null || fail "rollback"
sed -i 's/active: blue/active: green/' "$work/conf/switchback.yaml"
until_true "the edit is live" sh -c '[ "$(curl -sS http://127.0.0.1:8080/)" = green ]'
ok "an edit of the mounted directory: $(shop)"
inside upgrade > "$work/upgrade.log" 2>&1 || fail "upgrade: $(cat "$work/upgrade.log")"
[ "$(shop)" = green ] || fail "not green after an upgrade"
ok "exec switchback upgrade: $(tail -1 "$work/upgrade.log")"

engine kill --signal KILL "$proxy" > /dev/null
until_true "it is dead" sh -c "! kill -0 $first"
engine start "$proxy" > /dev/null
until_true "ready again" curl -fsS http://127.0.0.1:9900/readyz
[ "$(shop)" = green ] || fail "not green after a crash: $(shop)"
ok "kill and start: the volume has its state: $(shop)"

began=$(date +%s%3N)
engine stop --time 10 "$proxy" > /dev/null
code=$(engine inspect --format '{{.State.ExitCode}}' "$proxy")
[ "$code" = 0 ] || fail "stop: exit code $code"
ok "stop: exit code 0 after $(($(date +%s%3N) - began)) ms"
echo "the image holds under $(engine --version)"

#!/bin/bash
# Runs inside the container of packaging/verify.sh.
set -euo pipefail
fail() {
    echo "FAILED: $*"
    systemctl --no-pager status switchback.service switchback.socket || true
    journalctl --no-pager -u switchback.service -u switchback.socket | tail -40
    exit 1
}
ok() { echo "ok: $*"; }
until_true() { # WHAT COMMAND…
    local what=$1 end=$((SECONDS + 20))
    shift
    until "$@" > /dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "still not so: $what"
        sleep 0.05
    done
}
ask() { curl -sS --max-time 5 http://127.0.0.1/; }
serves() { [ "$(ask)" = "$1" ]; }
property() { systemctl show -P "$1" switchback.service; }
edit() { sed -i "s/body: [a-z]*/body: $1/" /etc/switchback/switchback.yaml; }
worker() { pgrep -P "$(property MainPID)"; }

systemctl start switchback.service || fail "start"
serves one || fail "not served: $(ask)"
ok "start: $(property ActiveState) ($(property SubState)), Type=$(property Type), served by user $(ps -o user= -p "$(property MainPID)")"
grep -q '^NoNewPrivs:.1' "/proc/$(property MainPID)/status" || fail "privileges can be gained"
grep -q '^Seccomp:.2' "/proc/$(property MainPID)/status" || fail "no filter of system calls"
grep -q '^CapBnd:.0000000000000400' "/proc/$(property MainPID)/status" || fail "capabilities: $(grep Cap "/proc/$(property MainPID)/status")"
ok "one capability (CAP_NET_BIND_SERVICE), no new privileges, a filter of system calls"

edit two
until_true "the edit is live" serves two
ok "an edit is live: $(ask)"
edit three
systemctl reload switchback.service || fail "reload"
until_true "the reload is live" serves three
ok "systemctl reload: $(ask)"

main=$(property MainPID)
kill -9 "$(worker)"
until_true "served after the crash of the worker" serves three
[ "$(property MainPID)" = "$main" ] && [ "$(property NRestarts)" = 0 ] || fail "systemd noticed the crash of a worker"
ok "kill -9 of the worker: systemd has nothing to do"

before=$(worker)
switchback upgrade -c /etc/switchback > /upgrade.out 2>&1 || fail "upgrade: $(cat /upgrade.out)"
until_true "the worker before is gone" sh -c "! kill -0 $before"
[ "$(property MainPID)" = "$main" ] && [ "$(property ActiveState)" = active ] || fail "after an upgrade: $(property ActiveState)"
serves three || fail "after an upgrade"
ok "switchback upgrade: $(property ActiveState), the main process is the same"

kill -9 "$main"
until_true "another main process" sh -c "[ \"\$(systemctl show -P MainPID switchback.service)\" != $main ] && [ \"\$(systemctl show -P ActiveState switchback.service)\" = active ]"
until_true "served after the crash of all" serves three
[ "$(property NRestarts)" = 1 ] || fail "restarts: $(property NRestarts)"
ok "kill -9 of the main process: systemd starts it again"

began=$(date +%s%3N)
systemctl stop switchback.service || fail "stop"
[ "$(property Result)" = success ] && [ "$(property ExecMainStatus)" = 0 ] || fail "stop: $(property Result), $(property ExecMainStatus)"
ok "stop: exit code 0 after $(($(date +%s%3N) - began)) ms"

# Behind systemd's sockets, without any capability.
sed -i '/443/d' /etc/systemd/system/switchback.socket
mkdir -p /etc/systemd/system/switchback.service.d
printf '[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\nWatchdogSec=2s\n' > /etc/systemd/system/switchback.service.d/sockets.conf
systemctl daemon-reload
systemctl start switchback.socket || fail "the socket unit"
serves three || fail "not started by its socket"
grep -q '^CapBnd:.0000000000000000' "/proc/$(property MainPID)/status" || fail "capabilities are left"
ok "started by the first connection to systemd's socket, without any capability"
clients() { # until /enough; "FAILED of ASKED" into /seen
    local failed=0 asked=0
    until [ -e /enough ]; do
        serves three || failed=$((failed + 1))
        asked=$((asked + 1))
    done
    echo "$failed of $asked" > /seen
}
systemctl reset-failed switchback.service
clients 2> /seen.errors &
for _ in 1 2 3; do systemctl restart switchback.service || fail "restart"; done
touch /enough
wait
[[ $(cat /seen) == "0 of "* ]] || fail "failed while it restarted: $(cat /seen) $(head -3 /seen.errors)"
ok "three restarts: $(cat /seen) fresh connections failed"

# So many starts in so little time are no accident, by the unit: this one does them on purpose.
systemctl reset-failed switchback.service
# One that hangs is killed with what it runs: at most the one request that a client of these has open. The others wait.
rm /enough
clients 2> /seen.errors &
kill -STOP "$(property MainPID)"
until_true "the watchdog has it replaced" sh -c "[ \"\$(systemctl show -P NRestarts switchback.service)\" -ge 1 ] && [ \"\$(systemctl show -P ActiveState switchback.service)\" = active ]"
touch /enough
wait
[[ $(cat /seen) == [01]" of "* ]] || fail "failed while it was replaced: $(cat /seen) $(head -3 /seen.errors)"
ok "a main process that hangs is replaced: $(cat /seen) fresh connections failed"
systemctl stop switchback.socket switchback.service
echo "the units hold"

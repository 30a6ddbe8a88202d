#!/usr/bin/env bash
# The units under a real systemd: a Debian of its own is booted in a container (systemd-nspawn), with the binary and
# packaging/systemd as docs/deployment.md installs them; started, asked, edited, reloaded, crashed, hung, upgraded, stopped,
# and restarted behind systemd's sockets while clients connect.
#
#     packaging/verify.sh [BINARY]
#
# BINARY is target/debug/switchback unless given; it needs the C library of Debian 12 or none. Needs root, and Debian's
# packages `debootstrap` and `systemd-container`. DEBIAN_ROOT may name what debootstrap has made before. Takes a minute
# or two. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:-target/debug/switchback}")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

if [ -n "${DEBIAN_ROOT:-}" ]; then
    cp -a "$DEBIAN_ROOT/." "$root"
else
    log=$(mktemp)
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,curl,procps bookworm "$root" > "$log" 2>&1 ||
        { tail "$log"; exit 1; }
    rm "$log"
fi
chmod 0755 "$root"
install -m 0755 "$binary" "$root/usr/local/bin/switchback"
install -m 0644 packaging/systemd/switchback.{service,socket} "$root/etc/systemd/system/"
install -D -m 0644 packaging/verify.yaml "$root/etc/switchback/switchback.yaml"
install -m 0755 packaging/verify_inside.sh "$root/verify"
# A machine that is not given more descriptors cannot give more to a service.
if [ "$(ulimit -Hn)" != unlimited ] && [ "$(ulimit -Hn)" -lt 262144 ]; then
    install -d "$root/etc/systemd/system/switchback.service.d"
    printf '[Service]\nLimitNOFILE=%s\n' "$(ulimit -Hn)" > "$root/etc/systemd/system/switchback.service.d/limits.conf"
    echo "note: this machine has $(ulimit -Hn) descriptors: LimitNOFILE is less than in the unit"
fi
cat > "$root/etc/systemd/system/verify.service" <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/verify > /verify.out 2>&1; systemctl poweroff'
UNIT
ln -s /etc/systemd/system/verify.service "$root/etc/systemd/system/multi-user.target.wants/"
timeout 180 systemd-nspawn -q -D "$root" --register=no --keep-unit --private-network -b < /dev/null > "$root/console" 2>&1 || true
cat "$root/verify.out" 2>/dev/null || tail -30 "$root/console"
[ "$(tail -1 "$root/verify.out" 2>/dev/null)" = "the units hold" ]

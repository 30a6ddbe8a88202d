#!/usr/bin/env bash
# What systemd says of the units, where it is installed:
#
#     packaging/check.sh [BINARY]
#
# The highest exposure that `systemd-analyze security` may find is written below; the rest is what a proxy needs: the
# network, and a user that is made when it starts.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:-target/debug/switchback}")
exposure_max=2.0

if ! command -v systemd-analyze > /dev/null; then
    echo "systemd-analyze is not installed: the units were not checked"
    exit
fi
units=$(mktemp -d)
trap 'rm -r "$units"' EXIT
cp packaging/systemd/switchback.* "$units"
# It looks for the program.
sed -i "s|/usr/local/bin/switchback|$binary|" "$units/switchback.service"
said=$(systemd-analyze verify "$units/switchback.service" "$units/switchback.socket" 2>&1 || true)
if grep -q "$units" <<< "$said"; then
    echo "$said"
    exit 1
fi
exposure=$(systemd-analyze security --offline=true "$units/switchback.service" | sed -n 's/.*exposure level.*: \([0-9.]*\) .*/\1/p')
echo "exposure: $exposure (at most $exposure_max)"
awk -v found="$exposure" -v max="$exposure_max" 'BEGIN { exit !(found != "" && found <= max) }'

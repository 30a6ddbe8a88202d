#!/usr/bin/env bash
# What can be checked of docker/ without an engine, in seconds:
#
#     docker/check.sh [BINARY]
#
# The configurations of the example, the rules and the settings of Prometheus (where promtool is installed: Debian's
# package `prometheus`), and that the rules name only metrics that there are.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:-target/debug/switchback}

for part in switchback blue green; do
    "$binary" check -c "docker/example/$part"
done
missing=0
while read -r metric; do
    grep -q "\"$metric\"" src/telemetry/names.rs ||
        { echo "docker/prometheus/rules.yml: there is no metric $metric"; missing=1; }
done < <(grep -o 'switchback_[a-z_]*' docker/prometheus/rules.yml | sort -u)
[ "$missing" = 0 ]
if command -v promtool >/dev/null; then
    promtool check config docker/prometheus/prometheus.yml
    promtool test rules docker/prometheus/rules_test.yml
else
    echo "promtool is not installed: the alert rules were not tested"
fi

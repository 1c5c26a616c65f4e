#!/usr/bin/env bash
# The dashboard's story in a real browser, against the real cloud. Prints where its screenshots are.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
export LONGHAUL_CLOUD="${LONGHAUL_CLOUD:-$target/debug/longhaul-cloud}"
export CHROMIUM="${CHROMIUM:-/usr/bin/chromium}"
for program in "$LONGHAUL_CLOUD" "$CHROMIUM"; do
    [ -x "$program" ] || { echo "browser: $program is missing" >&2; exit 1; }
done
# A debug build of the cloud reads the dashboard from disk.
scripts/dashboards.sh build
exec node dashboards/operator/test/story.mjs

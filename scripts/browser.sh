#!/usr/bin/env bash
# The dashboard's story in a real browser, against the real system. Says where its screenshots are.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
export LONGHAUL_SCREENSHOTS="$target/browser"
export CHROMIUM="${CHROMIUM:-/usr/bin/chromium}"
[ -x "$CHROMIUM" ] || { echo "browser: $CHROMIUM is missing: run scripts/tools.sh test" >&2; exit 1; }
# A debug build of the cloud reads the dashboard from this source tree.
scripts/dashboards.sh build
# As scripts/check.sh builds: another choice of targets or features would build everything again.
[ -n "${LONGHAUL_PROGRAMS:-}" ] || cargo build -q --workspace --all-targets --all-features
export LONGHAUL_PROGRAMS="${LONGHAUL_PROGRAMS:-$target/debug}"
exec node dashboards/operator/test/story/main.mjs

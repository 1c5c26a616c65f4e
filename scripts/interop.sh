#!/usr/bin/env bash
# MQTT 5 as an independent client sees it (Eclipse paho): our edge, beside mosquitto.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$(scripts/tools.sh path):$PATH"
target="${CARGO_TARGET_DIR:-$PWD/target}"
LONGHAUL_INTEROP_EDGE="$target/debug/longhaul-interop-edge" python3 -m pytest -q -p no:cacheprovider sim/interop

#!/usr/bin/env bash
# Tries the box's S3 endpoint with the clients that customers have, unmodified: conformance by boto3,
# and aws-cli, boto3, rclone, s5cmd and s3cmd each carrying files there and back.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$(scripts/tools.sh path):$PATH"
target="${CARGO_TARGET_DIR:-$PWD/target}"

# The same command as in `make test`, so that nothing is left to do there: one package alone has
# another set of features, and would be another build of nearly everything.
[ -n "${LONGHAUL_LAN_BOX:-}" ] || cargo build -q --workspace --all-targets --all-features
export LONGHAUL_LAN_BOX="${LONGHAUL_LAN_BOX:-$target/debug/examples/lan_box}" RUST_LOG="${RUST_LOG:-off}"
export PYTHONDONTWRITEBYTECODE=1
exec pytest -q -p no:cacheprovider device/tests/s3 "$@"

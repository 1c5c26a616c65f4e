#!/usr/bin/env bash
# Builds the wheel of the Python package, installs it into a fresh environment, and runs its tests
# against the stand-in box.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$(scripts/tools.sh path):$PATH"
target="${CARGO_TARGET_DIR:-$PWD/target}"
work="$target/python"
mkdir -p "$work"
rm -rf "$work/wheels" "$work/site"

cargo build -q -p longhaul-sdk --example test_box
maturin build -q --profile dev -m uploader-sdk/python/Cargo.toml --out "$work/wheels"
python3 -m pip install -q --no-index --no-deps --target "$work/site" "$work"/wheels/longhaul-*.whl
PYTHONPATH="$work/site" LONGHAUL_TEST_BOX="$target/debug/examples/test_box" \
    pytest -q -p no:cacheprovider uploader-sdk/python

#!/usr/bin/env bash
# Runs the public S3 conformance suite (ceph/s3-tests) against a box: `scripts/s3-tests.sh CHECKOUT [PYTEST ARGUMENT..]`.
#
# CHECKOUT is a copy of https://github.com/ceph/s3-tests; nothing of it is kept here. Only the tests
# named in device/tests/s3/public_suite.txt run (LONGHAUL_S3_TESTS_ALL=1: all of them); docs/s3.md says
# which are left out and why.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=$(realpath "${1:?usage: $0 CHECKOUT [PYTEST ARGUMENT..]}")
shift
[ -e "$suite/s3tests/functional/test_s3.py" ] || { echo "$suite is not a checkout of ceph/s3-tests" >&2; exit 2; }
export PATH="$(scripts/tools.sh s3-tests):$PATH"
target="${CARGO_TARGET_DIR:-$PWD/target}"

# The same command as in `make test`: one package alone is another set of features, and another build.
[ -n "${LONGHAUL_LAN_BOX:-}" ] || cargo build -q --workspace --all-targets --all-features
export LONGHAUL_LAN_BOX="${LONGHAUL_LAN_BOX:-$target/debug/examples/lan_box}" RUST_LOG="${RUST_LOG:-off}"
export PYTHONPATH="$suite:$PWD/device/tests/s3" PYTHONDONTWRITEBYTECODE=1
cd "$suite"
exec pytest -p public_suite -p no:cacheprovider -o addopts= -q --no-header --tb=line -rf \
    s3tests/functional/test_s3.py s3tests/functional/test_headers.py "$@"

#!/usr/bin/env bash
# fuzz.sh TARGET SECONDS: drives one target of `fuzz/` with libFuzzer, from the committed corpus.
#
# The instruments are those of cargo-fuzz, by options that the stable compiler has; AddressSanitizer
# needs a nightly one, and is not used. What is found lies in target/fuzz: inputs that reach something
# new in corpus/TARGET, inputs that break the target in found/.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:?which target? the folders of fuzz/corpus are named after them}
seconds=${2:-60}
[ -d "fuzz/corpus/$target" ] || { echo "no target $target; there are: $(ls fuzz/corpus | tr '\n' ' ')" >&2; exit 2; }
work="${CARGO_TARGET_DIR:-$PWD/target}/fuzz"
host=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
# The versions of the workspace: a lock file of its own would fall behind.
cp Cargo.lock fuzz/libfuzzer/Cargo.lock
# The instruments are for the target alone, not for build scripts: hence --target.
CARGO_TARGET_DIR="$work" RUSTFLAGS="-Cpasses=sancov-module $coverage" \
    cargo build --release --manifest-path fuzz/libfuzzer/Cargo.toml --target "$host"
mkdir -p "$work/corpus/$target" "$work/found"
LONGHAUL_FUZZ_TARGET="$target" exec "$work/$host/release/target" \
    -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$work/found/$target-" "$work/corpus/$target" "fuzz/corpus/$target"

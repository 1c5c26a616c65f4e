#!/usr/bin/env bash
# The Python package: packs what the workspace's build has made as a wheel, installs it into a fresh
# folder, and runs its tests against the stand-in box. `scripts/python.sh wheel DIR` builds the wheel
# that is handed out, optimised, instead.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$(scripts/tools.sh path):$PATH"
target="${CARGO_TARGET_DIR:-$PWD/target}"
manifest=uploader-sdk/python/Cargo.toml

if [ "${1:-}" = wheel ]; then
    exec maturin build -q --release --locked -m "$manifest" --out "${2:?a folder for the wheel}"
fi

work="$target/python"
rm -rf "$work"
mkdir -p "$work"
# Maturin asks for one package alone, which is another set of features and so another build of nearly
# everything. What it packs here is what `make test` has built: the same command, so nothing is left to do.
cat >"$work/cargo" <<'END'
#!/usr/bin/env bash
set -euo pipefail
[ "$1" = rustc ] || exec cargo "$@"
# Test harnesses bear the same names and are no libraries.
env -u PYO3_CONFIG_FILE -u PYO3_PYTHON -u PYO3_ENVIRONMENT_SIGNATURE -u PYTHON_SYS_EXECUTABLE \
    cargo build --workspace --all-targets --all-features --message-format json-render-diagnostics |
    grep -v '"test":true'
END
chmod +x "$work/cargo"
CARGO="$work/cargo" maturin build -q --profile dev -m "$manifest" --out "$work/wheels"
python3 -m pip install -q --no-index --no-deps --target "$work/site" "$work"/wheels/longhaul-*.whl
# The typed description says what the compiled module is, and is typed itself.
(cd "$work/site" && python3 -m mypy.stubtest --allowlist "$OLDPWD/uploader-sdk/python/stubtest.txt" longhaul)
MYPYPATH="$work/site" python3 -m mypy --strict --cache-dir "$work/mypy" uploader-sdk/python/tests/typed.py
export RUST_LOG="${RUST_LOG:-off}" LONGHAUL_LAN_BOX="$target/debug/examples/lan_box" LONGHAUL_KEPT_FOLDER="$target/debug/examples/kept_folder"
PYTHONPATH="$work/site" LONGHAUL_TEST_BOX="$target/debug/examples/test_box" LONGHAUL_CLI="$target/debug/longhaul" \
    pytest -q -p no:cacheprovider uploader-sdk/python

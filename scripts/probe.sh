#!/usr/bin/env bash
# Builds longhaul-probe as one static file: `scripts/probe.sh TARGET [CARGO OPTION..]`. PROFILE=dev builds without optimising.
set -euo pipefail
cd "$(dirname "$0")/.."
target="$1"
shift
profile="${PROFILE:-release}"
triple="$(rustc -vV | sed -n 's/^host: //p')"
# `--target` keeps the flag from what runs while building: macros are libraries, which cannot be static.
RUSTFLAGS="-C target-feature=+crt-static ${RUSTFLAGS:-}" CARGO_TARGET_DIR="$target" \
    cargo build --profile "$profile" --target "$triple" -p longhaul-bringup --bin longhaul-probe "$@"
folder="$profile"
[ "$profile" != dev ] || folder=debug
mkdir -p "$target/probe"
install -m 755 "$target/$triple/$folder/longhaul-probe" "$target/probe/longhaul-probe"
probe="$target/probe/longhaul-probe"
if readelf -lW "$probe" | grep -q INTERP || readelf -dW "$probe" 2>/dev/null | grep -q NEEDED; then
    echo "probe: $probe is not static" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    empty="$(mktemp -d)"
    trap 'rm -rf "$empty"' EXIT
    install -m 755 "$probe" "$empty/longhaul-probe"
    chroot "$empty" /longhaul-probe --version
else
    echo "NOT CHECKED: starting it in an empty root needs root" >&2
fi
echo "$probe"

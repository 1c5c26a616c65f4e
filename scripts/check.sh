#!/usr/bin/env bash
# Every check of `make test`, in order, each with its time: `scripts/check.sh all|lint|deny|unit|api|clients|python|browser`.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$(scripts/tools.sh "$([ "${1:-}" = all ] && echo test || echo path)"):$PATH"
target="${CARGO_TARGET_DIR:-$PWD/target}"
times=()

# step NAME COMMAND..: runs one check and keeps its time.
step() {
    local name=$1 start=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    "$@" || { printf '\nFAILED: %s\n' "$name" >&2; exit 1; }
    times+=("$(printf '%5d s  %s' $((SECONDS - start)) "$name")")
}

lint() {
    step "format" cargo fmt --all --check
    step "clippy" cargo clippy --workspace --all-targets --all-features -- -D warnings
}

deny() {
    step "dependencies: bans, licences, sources" cargo deny --all-features check bans licenses sources --hide-inclusion-graph
    step "dependencies: advisories" advisories
}

# The advisory database comes by git from outside the registries. Without a way there, the copy of
# an earlier run is used; without that, the check cannot be made; that is said, and is no verdict.
advisories() {
    if cargo deny --all-features fetch db 2>/dev/null; then
        cargo deny --all-features check advisories
    elif compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/.git" >/dev/null; then
        echo "the advisory database cannot be reached from this machine: checking with the copy that is here"
        cargo deny --all-features --offline check advisories
    else
        echo "NOT CHECKED: the advisory database cannot be reached from this machine, and no copy is here"
    fi
}

# The bring-up tests make networks of their own. Where the system forbids that, they are not run.
namespaces() {
    unshare --net --mount true 2>/dev/null && return
    echo "NOT CHECKED: this system allows no network namespaces (not root?), so the bring-up tests are not run"
    export LONGHAUL_WITHOUT_NAMESPACES=1
}

unit() {
    namespaces
    step "build" cargo build --workspace --all-targets --all-features
    step "unit, property and whole-system tests" cargo nextest run --workspace --all-features
}

api() { step "the API against its description" scripts/api.sh; }

clients() { step "S3 clients against a box" scripts/s3.sh; }

python() {
    step "Python package" scripts/python.sh
    step "MQTT 5 as paho's client sees it, beside mosquitto" scripts/interop.sh
}

browser() { step "the dashboard's story in a browser" scripts/browser.sh; }

case "${1:-}" in
    all)
        step "dashboards: types, tests, bundle" scripts/dashboards.sh check
        lint
        deny
        unit
        api
        clients
        python
        browser
        printf '\nall checks passed\n'
        printf '%s\n' "${times[@]}"
        ;;
    lint) lint ;;
    deny) deny ;;
    unit) unit ;;
    api) api ;;
    clients) clients ;;
    python) python ;;
    browser) browser ;;
    *) echo "usage: $0 all|lint|deny|unit|api|clients|python|browser" >&2; exit 2 ;;
esac

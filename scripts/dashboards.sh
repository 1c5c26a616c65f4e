#!/usr/bin/env bash
# Builds or checks the dashboards: `scripts/dashboards.sh build|check`. Installs npm packages as locked.
set -euo pipefail
cd "$(dirname "$0")/../dashboards"

# `npm ci` only when the lock file is newer than what is installed.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    echo "setup: installing npm packages for the dashboards" >&2
    npm ci --no-audit --no-fund --loglevel=error
    touch node_modules/.package-lock.json
fi
case "${1:-}" in
    build) npm run --silent build ;;
    check) npm run --silent check ;;
    *) echo "usage: $0 build|check" >&2; exit 2 ;;
esac

#!/usr/bin/env bash
# bench-fleet.sh PROGRAM WORK ARGUMENTS..: runs longhaul-bench-fleet beside a PostgreSQL server of its
# own below WORK, which syncs to the disk as a real one does, and ends with it.
set -euo pipefail
program=$1 work=$2
shift 2
bin=$(find /usr/lib/postgresql -name initdb -printf '%h\n' | sort -V | tail -1)
[ -n "$bin" ] || { echo "bench-fleet: PostgreSQL is missing: run scripts/tools.sh bench" >&2; exit 1; }
data="$work/postgres"
rm -rf "$work"
mkdir -p "$data"
# The server refuses to run as root; its user has to get into the folder.
chown postgres "$data"
for folder in "$work" "$(dirname "$work")"; do chmod a+x "$folder"; done
as_postgres() { (cd / && exec setpriv --reuid=postgres --regid=postgres --clear-groups --pdeathsig KILL -- "$@"); }
as_postgres "$bin/initdb" --auth=trust --username=longhaul --encoding=UTF8 --locale=C.UTF-8 --no-instructions -D "$data" >/dev/null
as_postgres "$bin/postgres" -D "$data" -k "$data" -c listen_addresses= -c shared_buffers=256MB >"$work/postgres.log" 2>&1 &
trap 'as_postgres "$bin/pg_ctl" stop -s -m fast -D "$data"; rm -rf "$work"' EXIT
url="postgres://longhaul@localhost/postgres?host=$data"
for _ in $(seq 100); do "$bin/pg_isready" -q -h "$data" -U longhaul && break; sleep 0.1; done
"$program" --work "$work/systems" --postgres "$url" "$@"

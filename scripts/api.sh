#!/usr/bin/env bash
# schemathesis against a real cloud: whatever the description allows is taken, whatever it forbids is
# refused, and every answer is one that it describes. The same requests in every run.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
tools="$(scripts/tools.sh path)"
[ -x "$tools/st" ] || { echo "api: schemathesis is missing: run scripts/tools.sh test" >&2; exit 1; }
# As scripts/check.sh builds: another choice of targets or features would build everything again.
[ -n "${LONGHAUL_PROGRAMS:-}" ] || cargo build -q --workspace --all-targets --all-features
programs="${LONGHAUL_PROGRAMS:-$target/debug}"
folder="$(mktemp -d)"
"$programs/longhaul-cloud" --data "$folder/cloud" --public-host 127.0.0.1 --listen-people 127.0.0.1:0 \
    --listen-boxes 127.0.0.1:0 --listen-mqtt 127.0.0.1:0 --listen-s3 127.0.0.1:0 >"$folder/cloud.log" 2>&1 &
cloud=$!
finish() {
    cd /
    kill "$cloud" 2>/dev/null || true
    wait "$cloud" 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT
for _ in $(seq 600); do
    [ -e "$folder/cloud/ready.json" ] && break
    kill -0 "$cloud" 2>/dev/null || { cat "$folder/cloud.log" >&2; exit 1; }
    sleep 0.1
done

# Logs in with the first password, and yields the port's URL and a token.
said="$("$tools/python" - "$folder" <<'PYTHON'
import json, pathlib, re, ssl, sys, urllib.request

folder = pathlib.Path(sys.argv[1])
ready = json.loads((folder / "cloud/ready.json").read_text())
password = re.search(r"^password: (\S+)", (folder / "cloud.log").read_text(), re.M)[1]
tls = ssl.create_default_context(cafile=ready["root_pem"])


def post(path, body, headers):
    headers = {"content-type": "application/json", **headers}
    request = urllib.request.Request(ready["people_url"] + path, json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, context=tls)


session = post("/v1/session", {"name": "admin", "password": password}, {})
cookie = session.headers["set-cookie"].split(";")[0]
made = post("/v1/tokens", {"name": "schemathesis", "role": "admin"}, {"cookie": cookie, "x-longhaul-csrf": "1"})
print(ready["people_url"], ready["root_pem"], json.load(made)["secret"])
PYTHON
)"
read -r url root LONGHAUL_TOKEN <<<"$said"
export LONGHAUL_TOKEN PYTHONPATH="$PWD/scripts" PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=schemathesis_hooks
config="$PWD/scripts/schemathesis.toml"
# What it failed at before it would ask first again, from a folder where it is: that is one run's own.
cd "$folder"
# Not the time but the number of requests is bounded, so that a slow machine asks what a fast one asks.
status=0
"$tools/st" --config-file "$config" run "$url/v1/openapi.json" --tls-verify "$root" \
    --seed 1 --no-color "$@" || status=$?
if grep -E "panicked|ERROR" "$folder/cloud.log" >&2; then
    echo "api: the cloud failed at something, see above" >&2
    exit 1
fi
exit "$status"

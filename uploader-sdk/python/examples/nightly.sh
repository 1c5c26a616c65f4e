#!/usr/bin/env bash
# Every night: is everything well, what would not arrive, send what is new, wait for the cloud.
# LONGHAUL_TICKET names the ticket; run again after any failure, it continues.
set -euo pipefail
folder=${1:?a folder}

longhaul doctor >&2
longhaul lint "$folder" >&2
longhaul sync "$folder" --prefix nightly --wait --report "${TMPDIR:-/tmp}/nightly.jsonl"
longhaul get nightly/ "$(mktemp -d)/restored"
longhaul ls nightly/ >&2

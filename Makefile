# Longhaul: two commands. `make demo` runs the whole system here; `make test` runs every check.
.PHONY: demo test soak fuzz bench-transfer bench-fleet bench-bringup scenario conformance check lint deny unit api clients python browser dashboards build tools clean-demo probe

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:

export CARGO_TERM_COLOR ?= auto
# Where Cargo builds; the tests and the demo look for the binaries there.
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

## make demo: install what is missing, build, run the whole journey; ONCE=1 exits after it.
demo:
	scripts/tools.sh demo >/dev/null
	scripts/dashboards.sh build
	cargo build --release --bins -p longhaul-fleet-api -p longhaul-provisioning --features longhaul-provisioning/tpm -p longhaul-device -p longhaul-sdk -p longhaul-sim
	exec "$(TARGET)/release/longhaul-demo" $(if $(ONCE),--once) $(DEMO_ARGS)

## make bench-transfer: what the transfer costs, beside other tools; results in docs/benchmarks/.
## QUICK=1 only sees that it works; ONLY=bulk|small|puts|far|memory|million measures one topic. Needs root and 40 GB of disk.
BENCH_WORK ?= $(TARGET)/bench-transfer
bench-transfer:
	tools=$$(scripts/tools.sh bench)
	cargo build --release --bins -p longhaul-fleet-api -p longhaul-provisioning --features longhaul-provisioning/tpm -p longhaul-device -p longhaul-sdk -p longhaul-sim
	PATH="$$PATH:$$tools" exec "$(TARGET)/release/longhaul-bench" --work "$(BENCH_WORK)" --now "$$(date -u +%Y%m%dT%H%M%SZ)" \
		--command "make bench-transfer$(if $(ONLY), ONLY=$(ONLY))" $(if $(QUICK),--quick,--out docs/benchmarks) $(if $(ONLY),--only $(ONLY))

## make bench-fleet: what many boxes cost, beside mosquitto; results in docs/benchmarks/.
## QUICK=1 only sees that it works; ONLY=idle|connects|messages|boxes|journals|floods measures one topic; BOXES=100000 as many as there is memory for. Needs root.
bench-fleet:
	scripts/tools.sh bench >/dev/null
	cargo build --release --bins -p longhaul-fleet-api -p longhaul-provisioning --features longhaul-provisioning/tpm -p longhaul-device -p longhaul-sdk -p longhaul-sim
	exec scripts/bench-fleet.sh "$(TARGET)/release/longhaul-bench-fleet" "$(TARGET)/bench-fleet" --now "$$(date +%s)" $(if $(BOXES),--boxes $(BOXES)) \
		--command "make bench-fleet$(if $(ONLY), ONLY=$(ONLY))$(if $(BOXES), BOXES=$(BOXES))" $(if $(QUICK),--quick,--out docs/benchmarks) $(if $(ONLY),--only $(ONLY))

## make scenario NAME=steady|power-cut|cloud-down|rolling-restarts|certificate-wave: what a fleet goes through (sim/scenarios); FILE=.. plays another file.
scenario:
	scripts/tools.sh bench >/dev/null
	cargo build --release --bins -p longhaul-fleet-api -p longhaul-provisioning --features longhaul-provisioning/tpm -p longhaul-device -p longhaul-sdk -p longhaul-sim
	rm -rf "$(TARGET)/scenario"
	exec "$(TARGET)/release/longhaul-bench-fleet" --work "$(TARGET)/scenario" --now "$$(date +%s)" --scenario "$(or $(FILE),sim/scenarios/$(NAME).toml)"

## make bench-bringup: how soon a box says what is wrong with a network, and comes back; results in docs/benchmarks/. Needs root.
bench-bringup:
	scripts/tools.sh demo >/dev/null; scripts/tools.sh lab >/dev/null
	cargo build --workspace --all-features --bins
	exec "$(TARGET)/debug/longhaul-bench-bring-up" --work "$(TARGET)/bench-bringup" --date "$$(date -u +%Y-%m-%d)" --out docs/benchmarks

## make probe: longhaul-probe as one static file, in $(TARGET)/probe/; says so if it is not static, and starts it in an empty root (needs root).
## With glibc: the musl target of Rust is not needed. Names are looked up by what lies in the file, whatever the machine is set to.
probe:
	scripts/probe.sh "$(TARGET)"

## make test: format, lints, dependencies, unit, property, whole-system, API, Python, browser.
test:
	scripts/check.sh all

## make soak: the vault, killed a thousand times, and fifty thousand random histories of it; 200 killed updates; 100 bad networks.
soak:
	LONGHAUL_VAULT_KILLS=1000 LONGHAUL_VAULT_CASES=50000 cargo nextest run -p longhaul-vault killed model
	cargo build --workspace --all-features --bins
	LONGHAUL_UPDATE_KILLS=200 cargo test --workspace --all-features --test updates killed
	LONGHAUL_WALK=100 cargo test --workspace --all-features --test bring_up no_order -- --nocapture

## make fuzz TARGET=pack SECONDS=60: one parser under libFuzzer; the targets are the folders of fuzz/corpus.
fuzz:
	scripts/fuzz.sh "$(TARGET)" "$(or $(SECONDS),60)"

## make conformance S3_TESTS=DIR: the public S3 suite, from a checkout of ceph/s3-tests.
conformance:
	scripts/s3-tests.sh "$(S3_TESTS)"

## Parts of `make test`, for while one works.
lint:
	scripts/check.sh lint
deny:
	scripts/check.sh deny
unit:
	scripts/check.sh unit
api:
	scripts/check.sh api
clients:
	scripts/check.sh clients
python:
	scripts/check.sh python
browser:
	scripts/check.sh browser
dashboards:
	scripts/dashboards.sh build

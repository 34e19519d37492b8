# What people need. `make help` lists it.

SHELL := /bin/bash
TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
DIST := target/dist
CARGO := cargo --locked
# The agent is one static file: it runs in an image with nothing else. So is what the tests put into containers.
STATIC := RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --release --target $(TARGET)
# Not in the workspace: it is compiled for libFuzzer.
FUZZ := --manifest-path tests/fuzz/Cargo.toml
TIMED = @tests/support/timed
# For each target of make fuzz.
SECONDS := 300

.PHONY: help setup build image demo test lint test-unit test-fuzz fuzz test-binaries test-e2e test-cluster test-bench test-kernels bench bench-cluster cluster-up cluster-down clean

help: ## show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## install what building, the demo and the tests need (Debian packages, as root)
	@tests/support/setup

build: setup ## build the client and the static agent into target/dist
	@mkdir -p $(DIST)
	$(CARGO) build --release -p kubectl-gadget
	$(STATIC) -p gadget-agent
	@install -m 755 target/release/kubectl-gadget target/$(TARGET)/release/gadget-agent $(DIST)/

image: build ## write the agent's image into target/dist, to load on nodes or push to a registry
	@manifests/image $(DIST)/gadget-agent $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml) $(DIST)/gadget-agent.oci.tar

demo: image ## see execsnoop on the pods of a cluster of two nodes, which it starts on this host
	@tests/demo

test: ## run everything (as root)
	$(TIMED) "setup" $(MAKE) --no-print-directory setup
	$(TIMED) "lint" $(MAKE) --no-print-directory lint
	$(TIMED) "unit tests" $(MAKE) --no-print-directory test-unit
	$(TIMED) "fuzz" $(MAKE) --no-print-directory test-fuzz
	$(TIMED) "build" $(MAKE) --no-print-directory build
	$(TIMED) "end to end" $(MAKE) --no-print-directory test-e2e
	$(TIMED) "cluster" $(MAKE) --no-print-directory test-cluster
	$(TIMED) "bench" $(MAKE) --no-print-directory test-bench
	$(TIMED) "kernels" $(MAKE) --no-print-directory test-kernels
	$(TIMED) --report

lint: setup ## formatting, clippy, documentation, licences of dependencies
	$(CARGO) fmt --check
	$(CARGO) fmt --check $(FUZZ)
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy $(FUZZ) --target-dir $${CARGO_TARGET_DIR:-target} -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' $(CARGO) doc --workspace --no-deps --document-private-items --quiet
	tests/support/deny

test-unit: setup ## tests that need neither root nor a kernel
	$(CARGO) test --workspace --exclude tests
	$(CARGO) test -p tests --test architecture

test-fuzz: setup ## fuzz what reads foreign bytes, for a few seconds
	tests/fuzz/run 5

fuzz: setup ## the same for longer: make fuzz SECONDS=600, for each target
	tests/fuzz/run $(SECONDS)

test-binaries: build
	$(STATIC) -p tests --bins
	@install -m 755 $(addprefix target/$(TARGET)/release/,workload programs generator bench) $(DIST)/
	@install -m 755 "$$(tests/profiled/build rust | cut -d ' ' -f 2)/app/hot" $(DIST)/
	@for name in tiny-agent tiny-client; do ln -f $(DIST)/programs $(DIST)/$$name; done

# The faults mostly wait, and so run more than one a processor.
test-e2e: test-binaries ## the real client, agent, kernel and containers (as root)
	tests/support/tidy $(CARGO) test -p tests --test faults -- --test-threads 8
	tests/support/run $(CARGO) test -p tests --test e2e

test-cluster: image test-binaries ## the same through kubectl, on a cluster of two nodes (as root)
	tests/support/cluster/run $(CARGO) test -p tests --test cluster

test-bench: image test-binaries ## the measurements in small: what is printed and what is told lost is all there was (as root)
	tests/support/run $(DIST)/bench --quick

bench: image test-binaries ## measure everything beside other tools (as root), or ROWS="watched drain"; writes docs/performance.md
	tests/support/run $(DIST)/bench $(ROWS)

bench-cluster: image test-binaries ## the same through kubectl, on a cluster of two nodes (as root)
	tests/support/cluster/run $(DIST)/bench cluster

test-kernels: test-binaries ## every gadget on Debian's kernels, in virtual machines; writes docs/kernels.md
	tests/support/tidy $(CARGO) test -p tests --test kernels -- --nocapture

cluster-up: setup ## start a Kubernetes cluster of two nodes on this host (as root); builds Kubernetes once, in minutes
	@tests/support/cluster/cluster up

cluster-down: ## remove the cluster
	@tests/support/cluster/cluster down

clean: ## remove what was built
	rm -rf target

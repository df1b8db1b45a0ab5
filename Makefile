# What a person types. Each target with a ## comment is listed by `make help`.
.DEFAULT_GOAL := help
.PHONY: help tools fmt lint generate test demo clean

CARGO ?= cargo

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

tools: ## Build the real servers of the test bed into .tools (minutes the first time, skipped afterwards)
	@tests/tools/build.sh controlplane prometheus
	@tests/tools/old-prometheus.sh

fmt: ## Format the code
	$(CARGO) fmt --all

lint: ## Check formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

generate: ## Write crds/ from the types in src/api
	$(CARGO) run --quiet --locked --bin learning-rollout-operator -- crds --dir crds

test: tools ## Run every test, on the real servers where they are called for
	$(CARGO) test --workspace --locked

# The demo needs no old Prometheus; its own program decides what is success.
# KEEP=1 leaves it running; CONTEXT=kind-x uses a cluster that exists.
demo: ## Show a rollback from the breach to the restore (KEEP=1, CONTEXT=…)
	@tests/tools/build.sh controlplane prometheus
	@echo "building the operator, the plugin, the sample feature and the demo (minutes the first time)"
	$(CARGO) build --quiet --locked -p learning-rollout-operator -p learning-loop -p demo
	@KEEP=$(KEEP) CONTEXT=$(CONTEXT) $${CARGO_TARGET_DIR:-target}/debug/demo

clean: ## Remove what was built, but not the servers (those are in .tools)
	$(CARGO) clean

# Two commands for a newcomer: `make demo`, `make test`. Everything else is below, by what it does.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test soak conformance chaos cluster-up cluster-down cluster-status cluster-shell \
	test-cluster test-cluster-wider test-cluster-again test-cleanup test-kfp unit check fix golden lock clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.installed ## create .venv with the pinned dependencies

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@echo "==> .venv: installing the pinned dependencies (first time: about 3 GB, a few minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed, found: $$($(PYTHON) --version)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@grep -A40 '^uv==' requirements/dev.txt | awk 'NR>1 && !/^    --hash/ {exit} {print}' > $(VENV)/uv.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
	@echo "==> .venv ready: $$(du -sh $(VENV) | cut -f1)"

demo: setup ## the whole lifecycle on this machine, with a served model at the end
	@$(BIN)/penstock demo --out out/demo

test: setup ## all tests that need no cluster
	@echo "==> unit, contract and golden tests"
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not integration and not soak and not conformance and not cluster"
	@echo "==> integration tests: servers and processes on 127.0.0.1"
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "integration and not soak and not conformance and not cluster"

soak: setup ## kills and interleavings by the thousand: minutes
	@$(BIN)/python -m pytest -q -m soak

conformance: setup ## what we write, read by transformers 4.57 and vLLM: minutes, and gigabytes once
	@$(BIN)/python -m pytest -q -m conformance tests/conformance

cluster-up: setup ## a real Kubernetes with KServe, without Docker; builds it once, twenty minutes
	@$(BIN)/python -m tests.cluster up

cluster-down: setup ## end it, also after a crash
	@$(BIN)/python -m tests.cluster down

cluster-status: setup ## its processes, memory and addresses
	@$(BIN)/python -m tests.cluster status

cluster-shell: setup ## a shell in its namespaces, with kubectl
	@$(BIN)/python -m tests.cluster shell

ON_CLUSTER = $(BIN)/python -m tests.cluster run -- $(BIN)/python -m pytest -q --durations=25

# those that can, two at a time; then those that want the cluster for themselves
define on_cluster
@failed=0; \
$(ON_CLUSTER) -n 2 --dist loadfile --no-loadscope-reorder -m "cluster and not alone and $(1)" \
  tests/cluster || failed=1; \
PENSTOCK_TEST_CPU=600m $(ON_CLUSTER) -n 0 -m "cluster and alone and $(1)" \
  --ignore=tests/cluster/test_cleanup.py tests/cluster || failed=1; \
exit $$failed
endef

test-cluster: cluster-up ## rollouts on the real cluster: traffic, storms, refusals, installation
	$(call on_cluster,not wider)

test-cluster-wider: cluster-up ## there, too: adoption, GitOps, tenants, GPUs, charts, meshes, pipelines' tasks
	$(call on_cluster,wider)

test-cluster-again: cluster-up ## those that failed, alone
	@$(ON_CLUSTER) -n 0 -m cluster --last-failed --last-failed-no-failures=none tests/cluster

chaos: cluster-up ## every disturbance of a rollout five times: two hours
	@PENSTOCK_TEST_CPU=600m PENSTOCK_CHAOS=5 $(ON_CLUSTER) -n 0 -m cluster tests/cluster/test_chaos.py

test-cleanup: setup ## starts clusters, ends them in every way, and looks for what is left
	@$(BIN)/python -m pytest -q -n 0 -m cluster tests/cluster/test_cleanup.py

test-kfp: setup ## what we need of Kubeflow Pipelines; PENSTOCK_TEST_KFP=URL: of a real one, too
	@$(BIN)/python -m pytest -q -n 0 tests/contract/test_kfp.py

unit: setup ## the quick ones
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not integration and not soak and not conformance and not cluster"

check: setup ## everything static: format, lint, types, imports, dependencies, dead code, spelling
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry .
	@$(BIN)/vulture
	@$(BIN)/codespell

fix: setup ## what a machine can repair
	@$(BIN)/ruff check --fix -q .
	@$(BIN)/ruff format -q .

golden: setup ## regenerate what golden tests compare: read the diff before you commit it
	@$(BIN)/python -m pipelines.compile tests/golden/pipelines
	@$(BIN)/python -m penstock.cli.schema
	@$(BIN)/python -m tests.unit.serving.kserve.objects
	@$(BIN)/python -m tests.unit.serving.sizing.table
	@$(BIN)/python -m tests.unit.components.training.jobs
	@$(BIN)/python -m tests.unit.serving.runtimes.objects
	@$(BIN)/python -m tests.unit.deploy.chart
	@$(BIN)/python -c "from registry.passport import schema_text; import sys; sys.stdout.write(schema_text())" > docs/reference/passport.schema.json

lock: setup ## resolve the pins again
	@for e in core local cluster storage quantize steps train dev; do \
	  case $$e in core) x="";; dev) x="--extra quantize --extra train --extra cluster --group dev";; *) x="--extra $$e";; esac; \
	  $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $$x pyproject.toml -o requirements/$$e.txt; done

clean: ## remove what can be made again
	rm -rf $(VENV) out build .mypy_cache .ruff_cache .pytest_cache *.egg-info

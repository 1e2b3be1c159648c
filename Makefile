# Every command of the README; each works on a fresh clone with git, make and Python 3.13.
PYTHON ?= python3
RUN := .venv/bin/python -m
INSTALLED := .venv/installed
CHECKS := .venv-checks/installed
BENCH := .venv-bench
OPENAPI := .venv-openapi
# Of `make package`: the version of Python on Azure (3.14 needs a .venv of 3.14), and where durable state is kept there.
PYTHON_VERSION := 3.13
DURABLE_BACKEND ?= storage

.PHONY: help demo run import sandbox test simulate adopt test-host soak bench bench-batches check format plot package clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

demo: $(INSTALLED) ## Post the example records through the whole app and show what becomes of each
	@$(RUN) dev.demo

run: $(INSTALLED) ## Keep the app up on port 7071, with the sandbox API unless your settings name a real one
	@$(RUN) dev.run

# The key comes from the variable APP_KEY; OPTIONS=--dry-run has the file checked only.
URL ?= http://127.0.0.1:7071
import: $(INSTALLED) ## Import a CSV, NDJSON or JSON file through the app, each record once: FILE=… [URL=…]
	@test -n "$(FILE)" || { echo "expected FILE=companies.csv, and URL=https://… for another app than that of make run"; exit 2; }
	@$(RUN) dev.importer "$(FILE)" --url "$(URL)" $(OPTIONS)

sandbox: $(INSTALLED) ## Keep only the sandbox API up, for the app under `func start`
	@$(RUN) dev.sandbox

test: $(INSTALLED) $(OPENAPI)/installed ## Run the test suite
	@$(RUN) pytest -q

# SEEDS=… says how many; SEED=… runs one of them again, and tells its history.
SEEDS ?= 10000
simulate: $(INSTALLED) ## Run the app in 10,000 simulated worlds, with every fault that there is; SEEDS=… says how many
	@$(RUN) tests.simulation $(if $(SEED),--replay $(SEED),--seeds $(SEEDS))

adopt: $(INSTALLED) ## Give a copy of this tree another record and API, as the README shows, and try it out
	@$(RUN) dev.adopt

# HOST_COMMAND='func start --port {port}' starts a host with the sandbox as its API; HOST_URL=… [KEY=…] [SANDBOX_URL=…]
# takes one that runs already, and without the sandbox sends it nothing that would be stored.
export HOST_COMMAND HOST_URL KEY SANDBOX_URL
test-host: $(INSTALLED) ## Run the tests that hold on every host on one of yours, named by HOST_COMMAND or HOST_URL
	@test -n "$(HOST_COMMAND)$(HOST_URL)" || { echo "expected HOST_COMMAND='func start --port {port}' or HOST_URL=https://…"; exit 2; }
	@$(RUN) pytest -q tests/host

soak: $(INSTALLED) ## Kill the host, and an import, again and again while the API fails, and count what was stored
	@SOAK=1 $(RUN) pytest -q -s --timeout=300 tests/faults

bench: $(BENCH)/installed ## Measure everything against what one would use instead, in less than ten minutes
	@$(BENCH)/bin/python -m dev.benchmarks

bench-batches: $(BENCH)/installed ## Measure batches at an API with limits, contention and outages, in a quarter of an hour
	@$(BENCH)/bin/python -m dev.benchmarks.long_batches

check: $(INSTALLED) $(CHECKS) ## Lint, format, types, import directions, Azure Functions diagnostics
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) pyright
	.venv/bin/lint-imports --no-cache
	.venv/bin/azure-functions-doctor doctor --profile full
	.venv-checks/bin/checkov -d infra --config-file infra/.checkov.yaml
	.venv-checks/bin/actionlint .github/workflows/*.yml
	.venv-checks/bin/yamllint --strict -c infra/.yamllint.yaml azure.yaml .github infra
	.venv-checks/bin/zizmor --offline --no-progress --quiet .github

format: $(INSTALLED) ## Format the code
	$(RUN) ruff check --fix-only .
	$(RUN) ruff format .

plot: $(INSTALLED) ## Draw docs/pacing.svg anew, from the simulation
	@$(RUN) dev.pacing_plot

package: $(INSTALLED) ## Build what is deployed to Azure, dependencies included, as the folder package/
	@$(RUN) dev.package --python-version $(PYTHON_VERSION) --backend $(DURABLE_BACKEND)

clean: ## Remove everything that these commands made
	rm -rf .venv .venv-checks .venv-bench .venv-openapi .azurite package .devhost .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(INSTALLED): requirements.txt requirements-dev.txt constraints.txt constraints-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 13) and "Python 3.13 is needed, this is " + sys.version)'
	@$(PYTHON) -m venv .venv
	@$(RUN) pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(CHECKS): infra/requirements-checks.txt infra/constraints-checks.txt
	@$(PYTHON) -m venv .venv-checks
	@.venv-checks/bin/python -m pip install --quiet --disable-pip-version-check -r infra/requirements-checks.txt
	@touch $@

$(BENCH)/installed: constraints.txt constraints-dev.txt requirements.txt dev/benchmarks/requirements.txt
	@$(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -r dev/benchmarks/requirements.txt
	@touch $@

# The npm packages are left out where there is no npm: their tests say then that they are skipped.
$(OPENAPI)/installed: constraints.txt $(wildcard dev/openapi/*.txt dev/openapi/*.json)
	@$(PYTHON) -m venv $(OPENAPI)
	@$(OPENAPI)/bin/python -m pip install --quiet --disable-pip-version-check -r dev/openapi/requirements.txt
	@cp dev/openapi/package.json dev/openapi/package-lock.json $(OPENAPI)
	@! command -v npm > /dev/null || npm ci --silent --ignore-scripts --no-audit --no-fund --prefix $(OPENAPI)
	@touch $@

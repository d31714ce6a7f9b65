# The environment is .venv, made from requirements.txt; every target makes or refreshes it first.
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1
export DVC_NO_ANALYTICS = 1

# Compiled modules are kept, in .venv and beside the sources: without them every process compiles what it imports anew,
# which takes longer than most stages' own work.
unexport PYTHONDONTWRITEBYTECODE

BIN = .venv/bin
WORKERS ?= 2
POOL ?= cpu
LIMIT ?= 2

.PHONY: demo test test-all check env env-ray server worker deploy clean

demo: env  ## environment, embedded data, the whole pipeline on real footage, report/index.html
	@$(BIN)/inbetween demo

test: env  ## the tests, 7 to 12 minutes on 2 cores
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not faults" tests

test-all: env env-ray  ## with the slow and the fault-injection campaigns, Ray among them
	@$(BIN)/python -m pytest tests

check: env  ## ruff, mypy, links in docs, tools.yaml
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/inbetween check

server: env  ## the standing Prefect server, on loopback; Ctrl-C ends it
	@$(BIN)/inbetween server

worker: env  ## a worker that takes runs from the server: make worker POOL=gpu LIMIT=1
	@$(BIN)/inbetween worker --pool $(POOL) --limit $(LIMIT)

deploy: env  ## work pools, deployments and automations on the server
	@$(BIN)/inbetween deploy

env: .venv/.ready

.venv/.ready: pyproject.toml requirements.txt requirements-weights.txt env.sh
	@bash env.sh

env-ray: .venv/.ready-ray  ## the extra for runner: ray (0.3 GB more)

.venv/.ready-ray: .venv/.ready requirements-ray.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements-ray.txt && touch $@

clean:  ## everything that can be made again, but for the DVC cache
	@rm -rf .venv .inbetween report .pytest_cache .mypy_cache .ruff_cache

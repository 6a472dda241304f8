# The front door. Bare `make` prints what each verb does; CI uses the same verbs.
# STACK=compose does a verb on the composed platform instead (Docker; nothing of .venv).
# Variables: S= part, JSON=1, YES=1, FOLLOW=1, RATE= SECONDS= of a load test, DATA= folder and MAPPING= file with your own
# data, ARGS= for pytest, PYTHON= interpreter to build from; every MINIMART_* of .env.example works from the environment.

PYTHON ?= python3
BOOTSTRAP := $(PYTHON) deploy/native/bootstrap.py
PLATFORM := .venv/platform/bin/python
TRAINING := .venv/training/bin/python
DEV := .venv/dev/bin
STACK_CLI := $(PLATFORM) -m pipelines.stack
RATE ?= 50
SECONDS ?= 30
STACK ?= native
# What works on the containers from outside runs on this machine whatever STACK says.
HOST := $(PLATFORM)
NATIVE := $(TRAINING)
SETUP := $(BOOTSTRAP)

ifeq ($(STACK),compose)
# The same programs, in a container of the composed network.
PLATFORM := pipelines/stack/compose/inside
TRAINING := pipelines/stack/compose/inside
STACK_CLI := $(PYTHON) -m pipelines.stack.compose
SETUP := :
export PYTHON
else ifneq ($(STACK),native)
$(error STACK=$(STACK) is not known: native or compose)
endif

# Threads that wait for one another sleep: training shares its cores with the platform.
export OMP_WAIT_POLICY ?= PASSIVE
# onnxruntime reports to its makers unless told not to.
export ORT_DISABLE_TELEMETRY ?= 1

ifdef DATA
export MINIMART_DATA := $(abspath $(DATA))
endif
ifdef MAPPING
export MINIMART_MAPPING := $(abspath $(MAPPING))
endif

DRILL = $(if $(KILL),--kill $(KILL)) $(if $(KILL_IN),--kill-in $(KILL_IN)) $(if $(SHORT),--short)

.DEFAULT_GOAL := help
.PHONY: backup bench bench-gpu capacity check check-contracts check-drift dashboards demo doctor down drill-alerts
.PHONY: drill-drift drill-incident drill-restore drill-sabotage env-example evaluate evidence flink help hold kill
.PHONY: kubernetes load lock logs parity proto reconcile repeat replay-dead-letters reset restore resume retrain
.PHONY: rollback rollout sbom start status test test-compose triage urls walk why

help: ## this list
	@echo "Minimart: make demo, then open what make urls prints."
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{printf "  %-22s %s\n", $$1, $$2}'

demo: ## set up, seed, train, serve; DATA=folder [MAPPING=file.toml] for your own data
	@$(SETUP) platform training triton clickhouse
	@$(STACK_CLI) demo

test: ## the whole test suite, two files at a time until whole platforms are needed; ARGS="-k name" for a part of it
	@$(BOOTSTRAP) platform training triton clickhouse dev
ifdef ARGS
	@$(DEV)/python -m pytest $(ARGS)
else
	@$(DEV)/python -m pytest -n 2 --dist loadfile --ignore tests/e2e --ignore tests/compose
	@$(DEV)/python -m pytest tests/e2e tests/compose
endif

test-compose: ## kill each container, restart Kafka under load, scale: the tests that need a Docker engine; ARGS="-k name"
	@$(BOOTSTRAP) platform training dev
	@$(PYTHON) -m pipelines.stack.compose demo
	@MINIMART_TEST_COMPOSE=1 $(DEV)/python -m pytest tests/compose $(ARGS)

check: ## ruff, mypy and the import walls
	@$(BOOTSTRAP) dev
	@$(DEV)/ruff check .
	@$(DEV)/mypy
	@$(DEV)/lint-imports
	@$(DEV)/python -m bench.evidence --check

evidence: $(PLATFORM) ## write the README's tree, picture and numbers again
	@$(PLATFORM) -m bench.evidence

status: $(PLATFORM) ## state of every part; exit 1 if one is unhealthy; JSON=1
	@$(STACK_CLI) status $(if $(JSON),--json)

urls: $(PLATFORM) ## where things are; JSON=1
	@$(STACK_CLI) urls $(if $(JSON),--json)

logs: $(PLATFORM) ## one part's log: S=name; FOLLOW=1 stays
	@$(STACK_CLI) logs "$(S)" $(if $(FOLLOW),--follow)

down: ## stop what we started, and nothing else
	@if [ -x $(PLATFORM) ]; then $(STACK_CLI) down; else echo "nothing of ours runs"; fi

reset: $(PLATFORM) ## stop and drop the data; asks, unless YES=1
	@$(STACK_CLI) reset $(if $(YES),--yes)

doctor: ## what this machine has, what is missing and how to install it, ports in use
	@$(SETUP) --doctor
	@if [ -x $(PLATFORM) ]; then $(STACK_CLI) doctor; fi

walk: $(PLATFORM) ## send one click and follow it through every hop
	@$(PLATFORM) -m pipelines.walk

why: $(PLATFORM) ## say why: ID=request_id (else the newest) [ITEM=id] [JSON=1]; SAMPLE=100 makes 100 decisions again
	@$(PLATFORM) -m pipelines.why $(ID) $(if $(ITEM),--item "$(ITEM)") $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(JSON),--json)

repeat: $(TRAINING) ## train a recorded run again and compare: RUN=id (without it the newest are listed); CHECKOUT=1 with the code as it is
	@$(TRAINING) -m pipelines.repeat $(RUN) $(if $(CHECKOUT),--checkout) $(if $(JSON),--json)

load: $(PLATFORM) ## open-loop load on the recommender: RATE=50 SECONDS=30
	@$(PLATFORM) -m bench.load --rate $(RATE) --seconds $(SECONDS)

evaluate: $(TRAINING) ## ranking quality on held-out days, after make demo: funnel against each stage alone; OUT=file.json
	@$(TRAINING) -m pipelines.evaluate $(if $(OUT),--out $(OUT))

check-drift: $(TRAINING) ## is it drift? the newest live traffic against a baseline: WINDOW=1h BASELINE=last_healthy|training|same_hour_last_week
	@$(TRAINING) -m pipelines.check_drift --record always $(if $(WINDOW),--window $(WINDOW)) $(if $(BASELINE),--baseline $(BASELINE))

check-contracts: $(TRAINING) ## does the data keep its contracts? the newest rows of the lake: WINDOW=1d CONTRACT=shop.clicks (empty: all)
	@$(TRAINING) -m pipelines.check_contracts $(if $(WINDOW),--window $(WINDOW)) $(if $(CONTRACT),--contract $(CONTRACT))

bench: $(TRAINING) ## measure again what the README says, on the running platform, with raw samples; then make evidence
	@cp "$${MINIMART_HOME:-.minimart}/bench/demo.json" bench/results/demo.json
	@$(PLATFORM) -m bench.load --rate $(RATE) --seconds $(SECONDS) --save bench/results/load.json
	@$(TRAINING) -m pipelines.evaluate --out bench/results/funnel.json

bench-gpu: $(TRAINING) ## shopper tower and deep ranker on this machine's NVIDIA GPU against its CPU: FP32, FP16, TensorRT where present
	@$(TRAINING) -m bench.gpu --save bench/results/gpu.json

capacity: $(TRAINING) ## what 100,000 requests a second would need: measured on this machine, simulated beyond it; about 5 minutes
	@$(TRAINING) -m bench.capacity --save bench/results/capacity.json

kill: $(PLATFORM) ## kill -9 one part to see what happens: S=redis; make start S=redis brings it back
	@$(STACK_CLI) kill "$(S)"

start: $(PLATFORM) ## start one part that was killed: S=name
	@$(STACK_CLI) start "$(S)"

rollout: $(PLATFORM) ## who is served what, and the last steps of the rollout
	@$(PLATFORM) -m pipelines.hold show

hold: $(PLATFORM) ## let no rollout of a model go on: MODEL=ranker (empty: all) REASON="..."
	@$(PLATFORM) -m pipelines.hold hold --model "$(or $(MODEL),recommender)" --reason "$(or $(REASON),held by hand)"

resume: $(PLATFORM) ## end a hold: MODEL=ranker (empty: the one of all)
	@$(PLATFORM) -m pipelines.hold resume --model "$(or $(MODEL),recommender)" --reason "$(or $(REASON),resumed by hand)"

rollback: $(PLATFORM) ## drop the challenger, or where there is none undo the last promotion: REASON="..."
	@$(PLATFORM) -m pipelines.hold rollback --reason "$(or $(REASON),asked for by hand)"

retrain: $(PLATFORM) ## have a challenger trained on the newest data, gated and rolled out: REASON="..."
	@$(PLATFORM) -m pipelines.hold retrain --reason "$(or $(REASON),asked for by hand)"

reconcile: $(TRAINING) ## whether every accepted event is counted once: Kafka against features, lake and analytics; exit 1 if not
	@$(TRAINING) -m pipelines.reconcile $(ARGS)

replay-dead-letters: $(TRAINING) ## send repaired dead letters again: ARGS="--help" says how
	@$(TRAINING) -m pipelines.replay_dead_letters $(ARGS)

kubernetes: $(TRAINING) ## write deploy/k8s/base again from docker-compose.yml
	@$(TRAINING) -m pipelines.kubernetes

backup: $(HOST) ## save MLflow's runs, models and artifacts while it runs: OUT=folder, STACK=compose
	@$(HOST) -m pipelines.backup save --stack $(STACK) $(if $(OUT),--out "$(OUT)")

restore: $(HOST) ## put a backup back, after every digest was checked: FROM=folder, STACK=compose
	@$(HOST) -m pipelines.backup restore --stack $(STACK) --from "$(FROM)"

drill-restore: $(HOST) ## save, destroy, restore and compare MLflow's store on the running platform; STACK=compose
	@$(HOST) -m pipelines.backup drill --stack $(STACK)

dashboards: $(HOST) ## write Grafana's dashboards again from pipelines/dashboards
	@$(HOST) -m pipelines.dashboards

drill-alerts: $(TRAINING) ## every alert rule is made to fire on the running platform, most by a real fault; ALERT=name for one
	@$(TRAINING) -m pipelines.drills alerts $(if $(ALERT),--alert $(ALERT))

drill-drift: $(TRAINING) ## the marketplace changes, the platform heals itself: SCENARIO=taste_shift|traffic_mix|seasonal|price_level, KILL=part, SHORT=1
	@$(TRAINING) -m pipelines.drills drift $(if $(SCENARIO),--scenario $(SCENARIO)) $(DRILL)

drill-sabotage: $(TRAINING) ## six bad challengers, none may do harm; KILL=part, SHORT=1
	@$(TRAINING) -m pipelines.drills sabotage $(DRILL)

drill-incident: $(TRAINING) ## something breaks at 3 a.m., triage finds out what: CASE=broken-units|null-surge|silence|bad-deploy, SHORT=1
	@$(TRAINING) -m pipelines.drills incident $(if $(CASE),--case $(CASE)) $(DRILL)

triage: $(TRAINING) ## which of the usual causes is it? compares the last 5 minutes with the 5 before; exit 1 when one is found
	@$(TRAINING) -m pipelines.drills.triage

parity: $(NATIVE) ## the zero-skew proof, under kill -9, on servers of its own: EVENTS=1000000 ENGINE=python SEED=7
	@$(NATIVE) -m pipelines.parity --events $(or $(EVENTS),1000000) $(if $(ENGINE),--engine $(ENGINE)) $(if $(SEED),--seed $(SEED))

flink: $(PLATFORM) ## the compiled features on Apache Flink: ARGS="run|sql|serve --redis URL" (run: until Ctrl-C, on the running Kafka)
	@$(PLATFORM) -m pipelines.flink $(or $(ARGS),run)

proto: ## write the message classes of adapters/rpc/*.proto again
	@cd adapters/rpc && ../../$(DEV)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. *.proto

env-example: $(PLATFORM) ## write .env.example again from settings.py
	@$(STACK_CLI) env-example > .env.example

sbom: ## the bill of materials of each image that is built (CycloneDX), under sbom/
	@mkdir -p sbom
	@for role in serving pipelines mlflow triton object-store; do docker run --rm --network none --entrypoint cat minimart-$$role:0.1.0 /app/sbom.cdx.json > sbom/$$role.cdx.json && echo sbom/$$role.cdx.json; done

lock: ## compile requirements/*.in again, with hashes and without index addresses
	@$(PYTHON) deploy/native/lock.py $(ARGS)

$(sort $(PLATFORM) $(TRAINING) $(HOST) $(NATIVE)):
	@$(BOOTSTRAP) platform training triton clickhouse

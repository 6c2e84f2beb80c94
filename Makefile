# Every task of the project, the same for people, hooks and CI. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := all
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
HOST ?= http://127.0.0.1:8000
USERS ?= 20
TIME ?= 30s
BASE ?= origin/main
# The model that a target is about: empty for the first, a name, or all.
MODEL ?=
# Stages that may run at a time; without it DVC runs one after another.
JOBS ?=
# Of the sample that `make try` takes.
ROWS ?= 10000
# Tests wait for other processes a third of the time.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) '*' 3 / 2)
MONITOR_ARGS ?=
MLFLOW_PORT ?= 5000
TERRAFORM ?= terraform
TARGETS ?=

# Tools come from the project's environment. uv comes from the machine, or from PyPI if the machine has none.
export PATH := $(CURDIR)/.venv/bin:$(PATH):$(CURDIR)/.uv/bin
# The target that installs uv. It is relative, because the path of a clone may contain blanks and a target may not.
UV := $(if $(shell command -v uv 2>/dev/null),,.uv/bin/uv)
# Python's programs read and print UTF-8 in every locale.
export PYTHONUTF8 := 1
# Tests and stages start the same modules many times; a machine that caches no bytecode compiles them each time.
unexport PYTHONDONTWRITEBYTECODE
READY := .venv/.ready
ESTIMATORS := .venv/.estimators
MLFLOW_CLIENT := .venv/.mlflow-client
# What a command about MODEL begins with.
IN = $(if $(MODEL),python -m common.models "$(MODEL)")
# The first model's folder has those of all others below it, so a model is named by its pipeline.
OUTPUTS = $(or $(TARGETS),$(if $(MODEL),dvc.yaml))
# A module's tests stay in one process, because they share fixtures.
PYTEST = python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

.PHONY: all
all: setup repro ## Set up, reproduce the pipeline, show the champion (the default)
	@$(IN) python -m training.leaderboard
	@echo
	@echo "Next:  make serve   talk to the champion at http://127.0.0.1:8000"
	@echo "       make mlflow  look at the runs in a browser"
	@echo "       make test    run the tests"
	@echo "       edit params.yaml and run make again: only what changed is computed"
	@echo "       make help    everything else"

.PHONY: setup
setup: $(READY) ## Create .venv from uv.lock, if the lock changed

$(READY): uv.lock pyproject.toml | $(UV)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or later is needed, and $(PYTHON) is older: make PYTHON=python3.12" >&2; exit 1; }
	uv sync --locked --compile-bytecode --python $(PYTHON)
	@touch $@

.PHONY: estimators
estimators: $(ESTIMATORS) ## Add what tests need beside: LightGBM, CatBoost, Dask, shap, MLflow, DVC for Google and Azure, and packages with data sets

$(ESTIMATORS): $(READY) | $(UV)
	uv sync --locked --inexact --group azure --group boosting --group dask --group datasets --group explanations --group gs \
	  --group mlflow --compile-bytecode --python $(PYTHON)
	@touch $@

.PHONY: feast
feast: .venv/feast/.ready ## Add Feast, in an environment of its own: docs/feature-store.md

# Below .venv, because tools and tests look through all of deploy/.
.venv/feast/.ready: deploy/feast/uv.lock deploy/feast/pyproject.toml | $(READY) $(UV)
	UV_PROJECT_ENVIRONMENT="$(CURDIR)/.venv/feast" uv sync --project deploy/feast --locked --compile-bytecode --python $(PYTHON)
	@touch $@

.uv/bin/uv:
	@echo "uv is not installed: getting it from PyPI into .uv"
	@$(PYTHON) -m venv .uv \
	  || { rm -rf .uv; echo "error: this Python cannot make environments: install python3-venv, or uv" >&2; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

.PHONY: repro
repro: setup ## Run the stages whose inputs changed, JOBS at a time, and track the results
	@# One run of DVC checks all pipelines in the time that each would take to start.
	$(if $(JOBS),python -m training.parallel --jobs "$(JOBS)" --model "$(MODEL)",$(if $(filter all,$(MODEL)),dvc repro --all-pipelines,$(IN) dvc repro))
	@$(IN) python -m training.track

.PHONY: model
model: setup ## Create the model NAME from SOURCE, a file or what data.source takes; it predicts the column TARGET (SPLIT_GROUP, SPLIT_TIME, TASK)
	@[[ -n "$(NAME)" && -n "$(SOURCE)" && -n "$(TARGET)" ]] \
	  || { echo "error: name all three, as in: make model NAME=churn SOURCE=churn.csv TARGET=left" >&2; exit 1; }
	@python -m training.draft "$(SOURCE)" --target "$(TARGET)" --model "$(NAME)" $(if $(TASK),--task "$(TASK)") \
	  $(if $(SPLIT_GROUP),--group "$(SPLIT_GROUP)") $(if $(SPLIT_TIME),--time "$(SPLIT_TIME)")
	@python -m deploy.overlay "$(NAME)" $(if $(OWNERS),--owners "$(OWNERS)")
	@python -m deploy.schedulers airflow

.PHONY: try
try: setup ## Try the parameters of MODEL on a random sample of ROWS rows (10000); results of all rows stay as they are
	$(IN) python -m training.trial --rows "$(ROWS)"

.PHONY: refresh
refresh: setup ## Read the data source again, then run the stages whose inputs changed
	$(IN) dvc repro --single-item --force fetch
	@$(MAKE) repro

.PHONY: track
track: setup ## Record results that the trackers of track.to lack; SINCE=REV: those of earlier commits, too
	@# A tracker decides nothing: without its client, the next line warns.
	$(if $(MLFLOW_TRACKING_URI),@$(MAKE) mlflow-client || true)
	$(IN) python -m training.track $(if $(SINCE),--since "$(SINCE)")

.PHONY: mlflow-client
mlflow-client: $(MLFLOW_CLIENT) ## Add MLflow's client; `make track` does it when MLFLOW_TRACKING_URI names a server

$(MLFLOW_CLIENT): $(READY) | $(UV)
	uv sync --locked --inexact --group mlflow --compile-bytecode --python $(PYTHON)
	@touch $@

.PHONY: mlflow
mlflow: mlflow-client ## Record the runs of MODEL in mlruns/ and show them in MLflow's page on MLFLOW_PORT (5000)
	@$(IN) env -u MLFLOW_TRACKING_URI python -m training.track --to mlflow
	@echo "MLflow: http://127.0.0.1:$(MLFLOW_PORT)"
	@# Neither figures about its use nor the processes of jobs that only language models have.
	@MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
	  UV_PROJECT_ENVIRONMENT="$(CURDIR)/.venv/mlflow" uv run --locked --quiet --project deploy/mlflow --python $(PYTHON) mlflow server --host 127.0.0.1 --port "$(MLFLOW_PORT)" --workers 1 \
	  --backend-store-uri sqlite:///mlruns/mlflow.db

.PHONY: serve
serve: setup ## Serve a model on port 8000
	$(IN) python -m app

.PHONY: test
test: setup estimators ## Run the tests, except the long ones; PYTEST_ARGS="-k page" for some
	$(PYTEST) $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: setup estimators ## Run the tests that take at most about a second each
	$(PYTEST) -m "not slow and not long" $(PYTEST_ARGS)

.PHONY: coverage
coverage: setup estimators ## Run the tests and fail if they cover too little of the code (takes twice as long)
	$(PYTEST) --cov $(PYTEST_ARGS)

.PHONY: test-long
test-long: setup estimators ## Run the long tests; PYTEST_ARGS="--changed-since=REV" for those whose subject changed
	$(PYTEST) -m long $(PYTEST_ARGS) || [[ $$? == 5 ]]  # 5: no test to run

.PHONY: explore
explore: setup estimators ## Run the property tests on random examples; `make test` always uses the same
	@mkdir -p build
	python -m pytest -n $(WORKERS) -m hypothesis --hypothesis-profile=explore $(PYTEST_ARGS) | tee build/explore.txt

.PHONY: infrastructure
infrastructure: ## Create or change what deploy/terraform describes on AWS; asks before each (TERRAFORM=tofu)
	@# Its bucket holds the state of everything else, and is created once.
	@[[ -f deploy/terraform/aws/backend.hcl ]] || { set -x; $(TERRAFORM) -chdir=deploy/terraform/bootstrap init -input=false \
	  && $(TERRAFORM) -chdir=deploy/terraform/bootstrap apply \
	  && mkdir -p build && $(TERRAFORM) -chdir=deploy/terraform/bootstrap output -raw backend > build/backend.hcl \
	  && mv build/backend.hcl deploy/terraform/aws/backend.hcl; }
	$(TERRAFORM) -chdir=deploy/terraform/aws init -input=false -backend-config=backend.hcl
	$(TERRAFORM) -chdir=deploy/terraform/aws apply
	python -m deploy.adopt terraform --program $(TERRAFORM)

.PHONY: docs
docs: $(UV) ## Build the documentation into build/site; a broken link fails
	@rm -rf build/docs build/site && mkdir -p build && cp -R docs build/docs
	@# Links that leave docs/ lead to the repository's page of that file.
	@repository=$$(sed -n 's/^repo_url = "\(.*\)"/\1/p' zensical.toml); find docs -name '*.md' | while read -r page; do \
	  up=$$(dirname "$$page" | sed -E 's#[^/]+#\\.\\.#g'); \
	  sed -E -e "s#(!\[[^]]*\]\()$$up/#\1$$repository/raw/main/#g" -e "s#\]\($$up/#]($$repository/blob/main/#g" \
	    "$$page" > "build/$$page"; \
	done
	uv run --quiet --locked --isolated --python $(PYTHON) --only-group docs zensical build --clean --strict

.PHONY: check
check: setup docs subjects ## Check format, lint, types, imports, the locks, YAML and the documentation's links
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	uv lock --check
	python -m training.packages --check
	python -m training.pipelines --check
	python -m deploy.schedulers airflow --check
	yamllint --strict .

.PHONY: subjects
subjects: ## Check that the commits since BASE have subjects of at most 72 characters
	@git rev-parse --quiet --verify "$(BASE)^{commit}" >/dev/null \
	  || { echo "$(BASE) is not in this clone: no commit's subject is checked"; exit 0; }; \
	long=$$(git log --no-merges --perl-regexp --author='^((?!\[bot\]).)*$$' --format='%h %s' "$(BASE)..HEAD" \
	  | grep -v ' Revert "' | grep -E '^[0-9a-f]+ .{73}' || true); \
	[[ -z $$long ]] || { printf 'error: subjects of more than 72 characters; shorten them with git rebase -i %s\n%s\n' "$(BASE)" "$$long" >&2; exit 1; }

.PHONY: format
format: setup ## Format the code and apply the linter's fixes
	ruff check --fix-only .
	ruff format .

.PHONY: packages
packages: setup ## Write what follows from uv.lock, dvc.yaml, algorithms and custom code: pipelines of models/, versions, the Airflow DAG
	python -m training.pipelines
	python -m training.packages
	python -m deploy.schedulers airflow

.PHONY: kubeflow
kubeflow: setup $(UV) ## Compile the Kubeflow pipeline: build/kubeflow/pipeline.yaml
	@python -m deploy.schedulers kubeflow

.PHONY: gate
gate: setup ## Compare a model with the one in production
	$(IN) python -m training.production

.PHONY: review
review: setup ## Write the comment that this branch's pull request will get: build/review/review.md
	$(IN) python -m training.review --base $(BASE)

.PHONY: image
image: setup ## Build the image of a model at this commit with docker, podman or buildah
	python -m deploy.image build --model "$(MODEL)"

.PHONY: manifests
manifests: setup $(UV) ## Render and check the manifests of every environment with every component
	python -m deploy.manifests --scan

.PHONY: status
status: setup ## Show what each environment runs of each model, according to git
	python -m deploy.release status --model "$(or $(MODEL),all)"

.PHONY: workflows
workflows: setup ## Lint the workflows, their scripts and the Dockerfile
	python -m deploy.lint

.PHONY: rehearse
rehearse: setup ## Run a pull request, its release and its rollback on this machine
	python -m deploy.rehearsal

.PHONY: dashboards
dashboards: setup ## Write rules, dashboards and limits from the objectives and the dashboards' Python
	python -m monitoring.generate

.PHONY: monitor
monitor: setup ## Run the service with Prometheus and, if installed, Alertmanager and Grafana; MONITOR_ARGS="--traffic"
	python -m monitoring.stack --model "$(MODEL)" $(MONITOR_ARGS)

.PHONY: compose
compose: setup ## Write what compose.yaml mounts, for the image of MODEL or IMAGE, and new passwords for its MLflow
	python -m monitoring.stack configure --model "$(MODEL)" $(if $(IMAGE),--image "$(IMAGE)")

.PHONY: load
load: setup ## Run a load test of HOST with USERS for TIME; fails if it exceeds the budget
	python -m tests.load.run --model "$(MODEL)" --host $(HOST) --users $(USERS) --time $(TIME)

.PHONY: pull
pull: setup ## Bring outputs of MODEL here from the DVC remote, or of all models; TARGETS="model data/test.parquet" for some
	@$(IN) python -m training.remote pull $(OUTPUTS)

.PHONY: push
push: setup ## Add to the DVC remote what it lacks of MODEL, or of all models; nothing there is overwritten
	@$(IN) python -m training.remote push $(OUTPUTS)

.PHONY: storage
storage: setup ## Start an S3 server on loopback and add it as a DVC remote
	python -m training.storage start

.PHONY: bench
bench: setup ## Run the benchmarks of pipeline and service (25 minutes; needs wrk)
	python -m benchmarks.pipeline
	python -m benchmarks.serving

.PHONY: abuse
abuse: setup ## Attack a local service for TIME and check its memory and answers
	$(IN) python -m tests.load.abuse --time $(TIME)

.PHONY: pictures
pictures: setup $(UV) ## Take the pictures in docs/images (needs chromium and prometheus)
	python -m tests.e2e.pictures
	python -m tests.training.track.pictures
	python -m tests.deploy.schedulers.pictures
	python -m tests.monitoring.pictures

.PHONY: clean
clean: ## Remove the environment, caches and local results (not the data in .storage)
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* .cache build wandb mlruns
	rm -rf model candidates reports/explore
	rm -f data/*.parquet data/raw.json data/profile.json
	rm -rf models/*/model models/*/candidates models/*/reports/explore models/*/build models/*/wandb
	rm -f models/*/data/*.parquet models/*/data/raw.json models/*/data/profile.json

.PHONY: help
help: ## List these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  %-10s %s\n", $$1, $$2}'

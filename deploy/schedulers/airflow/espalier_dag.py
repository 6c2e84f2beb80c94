"""Reads the data of all models again, trains what that changes, and opens the pull request of the workflow `retrain`.

Each stage is a task, and runs as `dvc repro --single-item`. All tasks of a run share a clone of main, in which stages may run
side by side. How to install this file, and the variables, the pool and the connection that it needs, are in docs/schedulers.md.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable, Param, TaskGroup

CRON = "43 4 * * 3"
"""As in .github/workflows/retrain.yml."""
POOL = "espalier"
"""Its slots are the stages that may run at a time."""

# The stages of each model, and those that each depends on. `make packages` writes them from DVC's graph.
STAGES = {
    "iris": {
        "settings": [],
        "fetch": ["settings"],
        "prepare": ["settings", "fetch"],
        "explore": ["prepare"],
        "train@logistic_regression": ["settings", "prepare"],
        "train@decision_tree": ["settings", "prepare"],
        "train@random_forest": ["settings", "prepare"],
        "train@svm": ["settings", "prepare"],
        "train@xgboost": ["settings", "prepare"],
        "select": [
            "settings",
            "prepare",
            "train@logistic_regression",
            "train@decision_tree",
            "train@random_forest",
            "train@svm",
            "train@xgboost",
        ],
    },
    "breast-cancer": {
        "settings": [],
        "fetch": ["settings"],
        "prepare": ["settings", "fetch"],
        "explore": ["prepare"],
        "train@logistic_regression": ["settings", "prepare"],
        "train@decision_tree": ["settings", "prepare"],
        "train@random_forest": ["settings", "prepare"],
        "train@svm": ["settings", "prepare"],
        "train@xgboost": ["settings", "prepare"],
        "select": [
            "settings",
            "prepare",
            "train@logistic_regression",
            "train@decision_tree",
            "train@random_forest",
            "train@svm",
            "train@xgboost",
        ],
    },
    "diabetes": {
        "settings": [],
        "fetch": ["settings"],
        "prepare": ["settings", "fetch"],
        "explore": ["prepare"],
        "train@ridge": ["settings", "prepare"],
        "train@decision_tree": ["settings", "prepare"],
        "train@random_forest": ["settings", "prepare"],
        "train@svm": ["settings", "prepare"],
        "train@xgboost": ["settings", "prepare"],
        "select": [
            "settings",
            "prepare",
            "train@ridge",
            "train@decision_tree",
            "train@random_forest",
            "train@svm",
            "train@xgboost",
        ],
    },
    "digits": {
        "settings": [],
        "fetch": ["settings"],
        "prepare": ["settings", "fetch"],
        "explore": ["prepare"],
        "train@logistic_regression": ["settings", "prepare"],
        "train@decision_tree": ["settings", "prepare"],
        "train@random_forest": ["settings", "prepare"],
        "train@svm": ["settings", "prepare"],
        "train@xgboost": ["settings", "prepare"],
        "select": [
            "settings",
            "prepare",
            "train@logistic_regression",
            "train@decision_tree",
            "train@random_forest",
            "train@svm",
            "train@xgboost",
        ],
    },
    "penguins": {
        "settings": [],
        "fetch": ["settings"],
        "prepare": ["settings", "fetch"],
        "explore": ["prepare"],
        "train@logistic_regression": ["settings", "prepare"],
        "train@decision_tree": ["settings", "prepare"],
        "train@random_forest": ["settings", "prepare"],
        "train@svm": ["settings", "prepare"],
        "train@xgboost": ["settings", "prepare"],
        "select": [
            "settings",
            "prepare",
            "train@logistic_regression",
            "train@decision_tree",
            "train@random_forest",
            "train@svm",
            "train@xgboost",
        ],
    },
    "wine": {
        "settings": [],
        "fetch": ["settings"],
        "prepare": ["settings", "fetch"],
        "explore": ["prepare"],
        "train@logistic_regression": ["settings", "prepare"],
        "train@decision_tree": ["settings", "prepare"],
        "train@random_forest": ["settings", "prepare"],
        "train@svm": ["settings", "prepare"],
        "train@xgboost": ["settings", "prepare"],
        "select": [
            "settings",
            "prepare",
            "train@logistic_regression",
            "train@decision_tree",
            "train@random_forest",
            "train@svm",
            "train@xgboost",
        ],
    },
}
FIRST = next(iter(STAGES))
"""The model in the repository's top folder; the others are in models/."""

ENVIRONMENT = {
    "REPOSITORY": "{{ var.value.espalier_repository }}",
    "CLONE": "{{ var.value.get('espalier_clone', '') }}",
    "VENV": "{{ var.value.get('espalier_venv', '') }}",
    "RUN": "{{ var.value.get('espalier_run', '') }}",
    "MODEL": "{{ params.model }}",
    "DVC_NO_ANALYTICS": "1",
    "PYTHONUTF8": "1",
}

BEGIN = """\
set -euo pipefail
: "${CLONE:=$HOME/espalier}"
"""

CHECKOUT = """\
[[ -d $CLONE/.git ]] || git clone --quiet --no-checkout "$REPOSITORY" "$CLONE"
cd "$CLONE"
git fetch --quiet "$REPOSITORY" main
git checkout --quiet --force --detach FETCH_HEAD
git clean --quiet --force -d
[[ -n $VENV ]] || make setup
export PATH="${VENV:-$CLONE/.venv}/bin:$PATH"
python -m deploy.ci.pipeline outputs --model "$MODEL"
"""

IN_CLONE = """\
cd "$CLONE"
export PATH="${VENV:-$CLONE/.venv}/bin:$PATH"
"""

# Another process of DVC may record its stage at the same time.
REPRO = "$RUN dvc --wait-for-lock repro --single-item"

REVIEW = """\
python -m deploy.ci.reproduce --keep-going --model "$MODEL" --base HEAD --output build/reproduce
if dvc config core.remote >/dev/null; then python -m training.remote push; fi
"""

TRACK = 'python -m common.models "$MODEL" python -m training.track\n'

# A clone of its own, because training code could have changed anything in the other one.
PROPOSE = """\
rm -rf "$CLONE.proposal"
git clone --quiet --config 'credential.helper=!gh auth git-credential' --branch main "$REPOSITORY" "$CLONE.proposal"
cd "$CLONE.proposal"
python3 -m deploy.ci.retrain --model "$MODEL" --patch "$CLONE/build/reproduce/lock.patch"
"""


def bash(task_id: str, command: str, env: dict[str, str] | None = None, **options: object) -> BashOperator:
    return BashOperator(
        task_id=task_id,
        bash_command=BEGIN + command,
        env={**ENVIRONMENT, **(env or {})},
        append_env=True,
        **options,
    )


def stage(model: str, name: str) -> BashOperator:
    address = name if model == FIRST else f"models/{model}/dvc.yaml:{name}"
    # DVC sees no change in a database or a bucket, so data is always read again.
    force = " --force" if name == "fetch" else ""
    # No status for skipped tasks: they would keep `review` from running.
    wanted = f'[[ "$MODEL" == all || "$MODEL" == {model} ]] || exit 0\n'
    return bash(
        name.replace("@", "-"),
        f"{wanted}{IN_CLONE}{REPRO}{force} {address}\n",
        task_display_name=name,
        pool=POOL,
    )


with DAG(
    "espalier_retrain",
    doc_md=__doc__,
    tags=["espalier"],
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(CRON, timezone="UTC"),
        assets=AssetAny(*(Asset(f"espalier_{model}_source") for model in STAGES)),
    ),
    params={
        "model": Param("all", enum=["all", *STAGES], description="The model to retrain"),
        "reason": Param("", type="string", description="Why, for the pull request"),
    },
    # They share a clone.
    max_active_runs=1,
    catchup=False,
    default_args={
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "execution_timeout": timedelta(hours=3),
    },
) as dag:
    checkout = bash("checkout", CHECKOUT)
    # A model that fails does not stop the others.
    review = bash("review", IN_CLONE + REVIEW, pool=POOL, trigger_rule="all_done_min_one_success")
    propose = bash(
        "propose",
        PROPOSE,
        env={
            "GH_TOKEN": "{{ conn.espalier_forge.password }}",
            "TRIGGER": "{{ dag_run.run_type }}",
            "REASON": "{{ params.reason }}",
        },
    )
    review >> [propose, bash("track", IN_CLONE + TRACK)]
    # Fails the run if anything failed, although the proposal was made.
    verdict = EmptyOperator(task_id="verdict", trigger_rule="none_failed")

    for model, stages in STAGES.items():
        with TaskGroup(model) as group:
            tasks = {name: stage(model, name) for name in stages}
            for name, needed in stages.items():
                for each in needed:
                    tasks[each] >> tasks[name]
        checkout >> group >> review
        group >> verdict
    propose >> verdict

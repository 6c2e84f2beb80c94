"""Delivery: what runs where, does the cluster follow git, and how well do changes get to production?"""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards.parts import (
    BLUE,
    DELIVERY,
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    compared,
    dashboard,
    gauges,
    lines,
    listing,
    number,
)

HOUR, DAY = 3_600, 86_400
ACTIONS = {"release": BLUE, "promote": GREEN, "rollback": RED}


def build() -> Dashboard:
    return dashboard(
        DELIVERY,
        "Espalier / Delivery",
        "What runs where, does the cluster follow git, and how well do changes get to production?",
        {
            "Is it fine?": [
                number(
                    "Applications that differ from git",
                    "short",
                    (
                        'count(argocd_app_info{APPLICATIONS, sync_status!="Synced"})'
                        " or 0 * count(argocd_app_info{APPLICATIONS})"
                    ),
                    "How many of Argo CD's applications are not what git says.",
                    ((None, GREEN), (1, RED)),
                ),
                number(
                    "Workflows that failed",
                    "short",
                    "count(espalier_workflow_success == 0) or 0 * count(espalier_workflow_success)",
                    "How many workflows failed in their last finished run on main.",
                    ((None, GREEN), (1, RED)),
                ),
                number(
                    "Lead time to production",
                    "s",
                    'max(espalier_lead_time_seconds{environment="production", model=~"$model"})',
                    "From the commit that production runs to the commit that deployed it there, for the last "
                    "deployment of each model, where it is longest.",
                    ((None, GREEN), (7 * DAY, YELLOW), (30 * DAY, RED)),
                ),
                number(
                    "Changes that failed",
                    "percentunit",
                    (
                        "sum(espalier_failed_changes_total{MODEL}) / sum("
                        'espalier_deployments_total{MODEL, action!="rollback"})'
                    ),
                    "The share of deployments that were rolled back, since the first one.",
                    ((None, GREEN), (0.15, YELLOW), (0.3, RED)),
                    decimals=1,
                ),
                number(
                    "Time to restore",
                    "s",
                    "max(espalier_restore_seconds{MODEL})",
                    "From the last deployment that failed to the rollback that took it back.",
                    ((None, GREEN), (HOUR, YELLOW), (DAY, RED)),
                    empty="none failed",
                ),
                number(
                    "Delivery's facts are",
                    "short",
                    "min(espalier_delivery_up)",
                    "Whether the exporter could read git and GitHub the last time it tried. When it could not, "
                    "everything below is as old as that.",
                    ((None, RED), (1, GREEN)),
                    words={0: ("stale", RED), 1: ("fresh", GREEN)},
                ),
            ],
            "What runs where": [
                listing(
                    "What should run, as git says?",
                    {
                        "environment": "Environment",
                        "model": "Model",
                        "version": "Model version",
                        "action": "Last action",
                        "revision": "Commit",
                        "digest": "Image",
                    },
                    {
                        "Deployed": (
                            "dateTimeFromNow",
                            (
                                "max by (environment, model, version, action, revision, digest) ("
                                "espalier_deployment_info{MODEL, OF_VERSION}"
                                " * on (environment, model) group_left () max by (environment, model) ("
                                "espalier_deployed_timestamp_seconds{MODEL}) * 1000)"
                            ),
                        )
                    },
                    "The last deployment of each model in each environment on main: its image, the commit it was built from, and "
                    "how it got there.",
                    width=14,
                    height=5,
                    words_of={"Last action": ACTIONS},
                ),
                listing(
                    "Does the cluster follow?",
                    {"name": "Application", "sync_status": "Git", "health_status": "Health"},
                    {
                        "Applications": (
                            "",
                            "max by (name, sync_status, health_status) (argocd_app_info{APPLICATIONS})",
                        )
                    },
                    "Argo CD's applications of this project: whether each is what git says, and whether it is well.",
                    width=10,
                    height=5,
                    words_of={
                        "Git": {"Synced": GREEN, "OutOfSync": RED, "Unknown": ORANGE},
                        "Health": {
                            "Healthy": GREEN,
                            "Progressing": BLUE,
                            "Suspended": YELLOW,
                            "Degraded": RED,
                            "Missing": RED,
                        },
                    },
                ),
            ],
            "How well do changes flow?": [
                lines(
                    "How long from commit to deployment?",
                    "s",
                    {"{{environment}} {{model}}": "espalier_lead_time_seconds{MODEL}"},
                    "From the commit that a model runs to the commit that deployed it, for the last "
                    "deployment at each time.",
                    width=6,
                    steps=True,
                    statistics=("lastNotNull",),
                ),
                lines(
                    "How many deployments, by action?",
                    "short",
                    {
                        "{{environment}}, {{action}}": "sum by (environment, action) (espalier_deployments_total{MODEL})"
                    },
                    "All deployments since the first one. A release goes to staging, a promotion to production.",
                    width=6,
                    steps=True,
                    colours={f"{action}$": colour for action, colour in ACTIONS.items()},
                    statistics=("lastNotNull",),
                ),
                lines(
                    "How many changes failed?",
                    "short",
                    {"{{environment}}": "sum by (environment) (espalier_failed_changes_total{MODEL})"},
                    "Deployments that a rollback took back, since the first one.",
                    width=6,
                    steps=True,
                    at_least_to=3,
                    statistics=("lastNotNull",),
                ),
                lines(
                    "How long until service was restored?",
                    "s",
                    {"{{environment}} {{model}}": "espalier_restore_seconds{MODEL}"},
                    "From the last deployment that failed to its rollback, at each time.",
                    width=6,
                    steps=True,
                    statistics=("lastNotNull",),
                ),
            ],
            "How good are the releases?": [
                compared(
                    "What did the releases score on the test split?",
                    "percentunit",
                    "score",
                    {
                        environment: (
                            "max by (score) (label_join("
                            f'espalier_release_metric{{MODEL, OF_VERSION, environment="{environment}", '
                            'split="test", metric!~".*loss"}'
                            ', "score", " ", "model", "metric"))'
                        )
                        for environment in ("staging", "production")
                    },
                    "Training metrics of what is deployed, measured on the file that is served and on rows that "
                    "selected nothing. Losses are left out; they are in the table.",
                    colours=(ORANGE, BLUE),
                    width=12,
                ),
                listing(
                    "Training metrics of each release",
                    {
                        "environment": "Environment",
                        "model": "Model",
                        "version": "Model version",
                        "split": "Split",
                        "metric": "Metric",
                    },
                    {
                        "Score": (
                            "none",
                            "max by (environment, model, version, split, metric) (espalier_release_metric{MODEL, OF_VERSION})",
                        )
                    },
                    "Every score of the champion at the commit that each environment runs.",
                    width=12,
                ),
            ],
            "Continuous integration": [
                gauges(
                    "How long did the last runs take?",
                    "s",
                    "sort_desc(max by (workflow) (espalier_workflow_run_seconds))",
                    "{{workflow}}",
                    "Duration of each workflow's last finished run on main.",
                    ((None, GREEN), (15 * 60, YELLOW), (30 * 60, RED)),
                    most=HOUR,
                ),
                lines(
                    "Does CI get slower?",
                    "s",
                    {"{{workflow}}": "max by (workflow) (espalier_workflow_run_seconds)"},
                    "Duration of the last finished run on main at each time.",
                    steps=True,
                ),
                listing(
                    "How did the last runs end?",
                    {"workflow": "Workflow"},
                    {
                        "Result": ("short", "max by (workflow) (espalier_workflow_success)"),
                        "Finished": (
                            "dateTimeFromNow",
                            "max by (workflow) (espalier_workflow_completed_timestamp_seconds) * 1000",
                        ),
                    },
                    "The last finished run of each workflow on main.",
                    width=8,
                    words={"Result": {1: ("success", GREEN), 0: ("failure", RED)}},
                ),
            ],
        },
        span="now-30d",
    )

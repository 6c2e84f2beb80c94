"""Model: which version predicts what, for inputs like those it was trained on, and is it still right?"""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards.parts import (
    BLUE,
    GREEN,
    MODEL,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    compared,
    dashboard,
    gauges,
    lines,
    listing,
    number,
)
from monitoring.objectives import objectives

DAY = 86_400
SEEN, TRAINED = BLUE, "#808080"


def build() -> Dashboard:
    table = objectives()
    look, drifted = table.drift.look, table.drift.alert
    drift = ((None, GREEN), (look, YELLOW), (drifted, RED))
    age = table.model_age_days
    refused = ((None, GREEN), (0.05, YELLOW), (table.rejected_share, RED))
    return dashboard(
        MODEL,
        "Espalier / Model",
        "Which version predicts what, for inputs like those it was trained on, and is it still right?",
        {
            "Is it fine?": [
                number(
                    "Strongest drift of a feature",
                    "none",
                    "max(espalier:feature_psi:24h{VERSION})",
                    "The largest population stability index of a feature over 24 hours. "
                    f"Below {look:g} the inputs are like those of training; above {drifted:g} they are not.",
                    drift,
                    decimals=2,
                ),
                number(
                    "Drift of the predictions",
                    "none",
                    "max(espalier:class_psi:24h{VERSION})",
                    "The population stability index of the predicted classes, or of a regression's values by bin, over "
                    "24 hours, against their shares in training.",
                    drift,
                    decimals=2,
                ),
                number(
                    "Confidence",
                    "percentunit",
                    "min(espalier:confidence:mean1h{VERSION})",
                    "The mean of the highest class probability over the last hour, of the least sure version. A "
                    "regression has none.",
                    ((None, RED), (0.6, YELLOW), (0.75, GREEN)),
                    decimals=1,
                    empty="no classes",
                ),
                number(
                    "Refused requests",
                    "percentunit",
                    "max(espalier:rejected:ratio_rate5m{VERSION})",
                    "The share of the requests for predictions of the last 5 minutes that the schema refused, where "
                    "it is worst.",
                    refused,
                    decimals=1,
                ),
                number(
                    "Age of the model",
                    "s",
                    "max(espalier:model_age_seconds{VERSION})",
                    "Time since this model was committed, of the oldest that runs.",
                    ((None, GREEN), (age.look * DAY, YELLOW), (age.alert * DAY, RED)),
                ),
                number(
                    "Right among labelled predictions",
                    "percentunit",
                    f"min({_live('model_live_accuracy_ratio')} or {_live('model_live_interval_coverage_ratio')})",
                    "The share of right predictions among those whose truth became known, of the worst version; of a "
                    "regression, the share of true values within their intervals. Computed by `python -m "
                    "monitoring.labels`, where the prediction log is on.",
                    ((None, RED), (0.8, YELLOW), (0.87, GREEN)),
                    decimals=1,
                    empty="no labels",
                ),
            ],
            "What runs": [
                listing(
                    "Which version runs in which pod?",
                    {
                        "environment": "Environment",
                        "pod": "Pod",
                        "version": "Model version",
                        "algorithm": "Algorithm",
                    },
                    {
                        "Running": (
                            "",
                            "max by (environment, pod, version, algorithm) (model_info{VERSION})",
                        )
                    },
                    "Every pod that answers, and the model that it loaded, as it says itself.",
                    width=10,
                ),
                lines(
                    "How many predictions, by version?",
                    "short",
                    {
                        "{{environment}} {{model_version}}": "sum by (environment, model_version) ("
                        "rate(model_predictions_total{VERSION}[$__rate_interval]))"
                    },
                    "Rows predicted a second. A batch counts with all its rows.",
                    width=7,
                    stacked=True,
                ),
                lines(
                    "How old are model and data?",
                    "s",
                    {
                        "model, {{environment}}": "max by (environment) (espalier:model_age_seconds{VERSION})",
                        "data, {{environment}}": "max by (environment) (espalier:data_age_seconds{VERSION})",
                    },
                    "Time since the model, and the data that it was trained on, were committed.",
                    width=7,
                    statistics=("lastNotNull",),
                ),
            ],
            "Predictions": [
                compared(
                    "Which classes or values are predicted, against training?",
                    "percentunit",
                    "class",
                    {
                        "last 24 h": "avg by (class) (espalier:class_share:24h{VERSION})",
                        "training": "avg by (class) (model_class_reference_ratio{VERSION})",
                    },
                    "The share of each class, or of each bin of a regression's target, among the predictions of 24 "
                    "hours, beside its share in the training data.",
                    colours=(SEEN, TRAINED),
                ),
                lines(
                    "How does the mix of predictions change?",
                    "percentunit",
                    {"{{class}}": "avg by (class) (espalier:class_share:1h{VERSION})"},
                    "The share of each class, or of each bin of a regression's target, among the predictions of the hour "
                    "before.",
                    stacked=True,
                    most=1,
                    statistics=("lastNotNull", "min", "max"),
                ),
                lines(
                    "How sure is the model?",
                    "percentunit",
                    {
                        "mean, {{model_version}}": "avg by (model_version) (espalier:confidence:mean1h{VERSION})",
                        "a tenth is below": (
                            "histogram_quantile(0.1, sum by (le) ("
                            "rate(model_prediction_confidence_bucket{VERSION}"
                            "[$__rate_interval])))"
                        ),
                    },
                    "The highest class probability of each prediction: its mean over an hour by version, and the "
                    "value that a tenth of the latest predictions do not reach. A regression has none.",
                    most=1,
                    statistics=("lastNotNull", "min"),
                ),
                lines(
                    "Which value is predicted on average?",
                    "short",
                    {
                        "{{environment}} {{model_version}}": "max by (environment, model_version) ("
                        "espalier:value:mean1h{VERSION})"
                    },
                    "The mean of a regression's predictions over an hour; classes have none. Versions that get the same "
                    "requests should agree.",
                    width=24,
                    least=None,
                    statistics=("lastNotNull", "min", "max"),
                ),
            ],
            "Refused input": [
                lines(
                    "Why are requests refused?",
                    "reqps",
                    {
                        "{{reason}}": "sum by (reason) (rate(model_rejected_total{VERSION}[$__rate_interval])) > 0"
                    },
                    "Refused requests a second by reason. Reasons that do not occur are left out.",
                    width=12,
                    stacked=True,
                ),
                listing(
                    "Which fields are at fault?",
                    {"field": "Field", "reason": "Reason"},
                    {
                        "In the last hour": (
                            "short",
                            "topk(10, sum by (field, reason) (increase(model_rejected_fields_total{VERSION}[1h])) >= 1)",
                        ),
                    },
                    "Faults in the fields of refused requests; one request may have several. Names that the model "
                    "does not know are counted as other; a feature of that name is 'other'.",
                    width=12,
                ),
            ],
            "Drift": [
                lines(
                    "Does a feature drift now?",
                    "none",
                    {"{{feature}}": "max by (feature) (espalier:feature_psi:1h{VERSION})"},
                    "The population stability index of each feature over the hour before, against training. The alert "
                    f"wants it above {drifted:g}, the line, in most hours of several. Nothing is shown for an hour with too "
                    "few predictions.",
                    at_least_to=0.3,
                    limits=((None, GREEN), drift[-1]),
                ),
                gauges(
                    "Which features drifted over a day?",
                    "none",
                    "sort_desc(max by (feature) (espalier:feature_psi:24h{VERSION}))",
                    "{{feature}}",
                    "The population stability index of each feature over 24 hours: 0 is the training distribution, "
                    f"{look:g} wants a look, {drifted:g} is another population.",
                    drift,
                    most=0.5,
                ),
                lines(
                    "Do the predictions drift?",
                    "none",
                    {
                        f"{window}, {{{{environment}}}}": (
                            f"max by (environment) (espalier:class_psi:{window}{{VERSION}})"
                        )
                        for window in ("1h", "24h")
                    },
                    "The population stability index of the predicted classes, or of a regression's values by bin, "
                    "against training. It may rise without any feature's when features change together.",
                    at_least_to=0.3,
                    limits=((None, GREEN), drift[-1]),
                ),
                compared(
                    "How do the values of a feature differ from training?",
                    "percentunit",
                    "bin",
                    {
                        "last 24 h": 'avg by (bin) (espalier:feature_share:24h{VERSION, feature="$feature"})',
                        "training": 'avg by (bin) (model_feature_reference_ratio{VERSION, feature="$feature"})',
                    },
                    "The share of the values of the feature chosen above in each bin, over 24 hours and in training. "
                    "It shows in which direction a feature drifts.",
                    colours=(SEEN, TRAINED),
                    width=24,
                ),
            ],
            "Stable and canary, side by side": [
                listing(
                    "How do the versions compare?",
                    {"environment": "Environment", "model_version": "Model version"},
                    {
                        "Pods": (
                            "short",
                            "count by (environment, model_version) (model_info{VERSION})",
                        ),
                        "Requests": (
                            "reqps",
                            "sum by (environment, model_version) (espalier:http_requests:rate5m{VERSION})",
                        ),
                        "p50": (
                            "s",
                            "max by (environment, model_version) (espalier:http_request_duration_seconds:p50_5m{VERSION})",
                        ),
                        "p99": (
                            "s",
                            "max by (environment, model_version) (espalier:http_request_duration_seconds:p99_5m{VERSION})",
                        ),
                        "Errors": (
                            "percentunit",
                            (
                                "sum by (environment, model_version) ("
                                '(espalier:http_requests:rate5m{VERSION, status=~"5.."})'
                                " or 0 * espalier:http_requests:rate5m{VERSION})"
                                " / sum by (environment, model_version) ("
                                "espalier:http_requests:rate5m{VERSION})"
                            ),
                        ),
                        "Refused": (
                            "percentunit",
                            "max by (environment, model_version) (espalier:rejected:ratio_rate5m{VERSION})",
                        ),
                        "Confidence": (
                            "percentunit",
                            "min by (environment, model_version) (espalier:confidence:mean1h{VERSION})",
                        ),
                        "Drift, 1 h": (
                            "none",
                            "max by (environment, model_version) (espalier:feature_psi:1h{VERSION})",
                        ),
                    },
                    "One row for each version that runs. During a rollout both versions of an environment get the "
                    "same mix of requests, so what differs is the model.",
                    width=16,
                    limits={
                        "Errors": (
                            (None, GREEN),
                            (table.error_budget, YELLOW),
                            (table.canary.error_share, RED),
                        ),
                        "p99": ((None, GREEN), (table.latency.seconds, RED)),
                        "Refused": refused,
                        "Drift, 1 h": drift,
                    },
                ),
                lines(
                    "Do the versions answer alike?",
                    "percentunit",
                    {
                        "{{class}}, {{model_version}}": "avg by (class, model_version) (espalier:class_share:1h{VERSION})"
                    },
                    "The share of each class or bin among the predictions of the hour before, by version. Lines of one "
                    "class that part mean that the versions disagree.",
                    statistics=("lastNotNull",),
                ),
            ],
            "Is it still right?": [
                lines(
                    "How many labelled predictions are right?",
                    "percentunit",
                    {
                        "right, {{environment}} {{model_version}}": _live("model_live_accuracy_ratio"),
                        "in the interval, {{environment}} {{model_version}}": _live(
                            "model_live_interval_coverage_ratio"
                        ),
                    },
                    "The share of right predictions among those whose truth became known; of a regression, the share of "
                    "true values within the prediction intervals, which are made to hold the share that its model card says. Computed "
                    "by `python -m monitoring.labels`, where the prediction log is on.",
                    most=1,
                    width=12,
                    steps=True,
                    statistics=("lastNotNull", "min"),
                ),
                lines(
                    "How far off are labelled values?",
                    "short",
                    {
                        "mean absolute, {{environment}} {{model_version}}": _live(
                            "model_live_mean_absolute_error"
                        ),
                        "root mean squared, {{environment}} {{model_version}}": _live(
                            "model_live_root_mean_squared_error"
                        ),
                    },
                    "The errors of a regression's predictions whose truth became known, in the target's unit; classes have "
                    "none. Compare with the scores on the page of the model.",
                    width=12,
                    steps=True,
                ),
                gauges(
                    "Which classes are found?",
                    "percentunit",
                    f"avg by (class) ({_live('model_live_recall_ratio')})",
                    "{{class}}",
                    "Recall: of the rows that truly were of a class, the share that was predicted so.",
                    ((None, RED), (0.7, YELLOW), (0.85, GREEN)),
                    most=1,
                ),
                lines(
                    "How does the prediction log keep up?",
                    "short",
                    {
                        "{{outcome}}": "sum by (outcome) (rate(prediction_log_rows_total{PLACE}[$__rate_interval]))",
                        "waiting (rows)": "sum(prediction_log_queue_rows{PLACE})",
                    },
                    "Rows a second that were written, dropped because the log could not keep up, or failed; and rows "
                    "that wait. Nothing is shown where the log is off.",
                    width=16,
                    colours={"^written": GREEN, "^dropped": RED, "^failed": ORANGE, "^waiting": PURPLE},
                ),
            ],
        },
        span="now-24h",
        one_model=True,
    )


def _live(metric: str) -> str:
    """A figure of `python -m monitoring.labels`, of the chosen versions."""
    return f'{metric}{{MODEL, model_version=~"$model_version"}}'

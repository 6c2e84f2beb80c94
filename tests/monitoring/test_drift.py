from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

import pytest
import yaml
from cmarkgfm import github_flavored_markdown_to_html  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from monitoring import drift
from monitoring import prometheus as client
from monitoring.drift import CLASSES, Limits, Report, Row, Version, gather
from monitoring.prometheus import Series
from tests.deploy.prometheus import NOW, Prometheus, serving
from tests.e2e.clone import ROOT

END = NOW // 3600 * 3600
ABSENT = math.inf
"""In a history: nothing was recorded for this window."""
CALM = (0.02, 0.05, 0.04, 0.03, 0.05, 0.06)
SIX_DAYS = (0.1, 0.2, 0.25, 0.3, 0.35, 0.4)

History = dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[int, float]]]


def history(
    namespace: str,
    version: str,
    features: dict[str, Sequence[float]],
    classes: Sequence[float] = CALM,
    predictions: float = 5000,
    days: Sequence[float] = (0.111,),
    classes_days: Sequence[float] = (),
    model: str = "iris",
) -> History:
    """What the recording rules would have left, at each full hour up to the newest one; `days` for each feature."""
    labels = {
        "namespace": namespace,
        "environment": namespace.removeprefix("espalier-"),
        "model": model,
        "model_version": version,
    }

    def series(name: str, values: Sequence[float], **more: str) -> History:
        first = END - 3600 * (len(values) - 1)
        samples = [(first + 3600 * i, value) for i, value in enumerate(values) if value != ABSENT]
        return {(name, tuple(sorted({**labels, **more}.items()))): samples} if samples else {}

    made = series("espalier:predictions:increase1h", [predictions])
    made |= series("espalier:predictions:increase24h", [predictions * 20])
    made |= series("espalier:class_psi:1h", classes)
    made |= series("espalier:class_psi:24h", classes_days or classes[-1:])
    for name, values in features.items():
        made |= series("espalier:feature_psi:1h", values, feature=name)
        made |= series("espalier:feature_psi:24h", days, feature=name)
    return made


HISTORIES = {
    **history("espalier-calm", "aaa", {"petal_length": CALM, "petal_width": CALM}),
    **history(
        "espalier-drifted", "aaa", {"petal_length": (0.1, 0.21, 0.3, 0.1, 0.4, 0.5), "petal_width": CALM}
    ),
    # Three windows beyond are one too few, and exactly the threshold is not beyond.
    **history("espalier-nearly", "aaa", {"petal_length": (0.3, 0.2, 0.3, 0.1, 0.2, 0.5)}),
    # Long ago is over.
    **history("espalier-over", "aaa", {"petal_length": (0.9, 0.9, 0.9, 0.9, *CALM)}),
    **history("espalier-mix", "aaa", {"petal_length": CALM}, classes=(0.1, 0.1, 0.9, 0.9, 0.9, 0.9)),
    **history("espalier-quiet", "aaa", {}, classes=(), predictions=12),
    # Too short a time for the day, too.
    **history("espalier-daily", "aaa", {"petal_length": ()}, (), 40, days=(0.35, 0.35, 0.35)),
    # Hours too quiet: the day judges, by the same numbers.
    **history("espalier-slow", "aaa", {"petal_length": ()}, (), 40, days=SIX_DAYS, classes_days=CALM),
    **history("espalier-slowmix", "aaa", {"petal_length": ()}, (), 40, days=CALM, classes_days=SIX_DAYS),
    **history("espalier-slowcalm", "aaa", {"petal_length": ()}, (), 40, days=CALM, classes_days=CALM),
    **history("espalier-slownearly", "aaa", {"petal_length": ()}, (), 40, days=(0.3, 0.3, 0.2, 0.1, 0.2, 0.5)),
    **history("espalier-slowgaps", "aaa", {"petal_length": ()}, (), 40, days=(0.5, ABSENT, 0.5, 0.5, math.nan, 0.5)),
    **history("espalier-slowover", "aaa", {"petal_length": ()}, (), 40, days=(0.9, 0.9, 0.9, 0.9, *CALM)),
    # At the border: four hours with an index judge, whatever they say; three do not; NaN is none.
    **history("espalier-four", "aaa", {"petal_length": (ABSENT, 0.1, 0.5, ABSENT, 0.5, 0.5)}, days=(0.9,) * 6),
    **history("espalier-fourdrift", "aaa", {"petal_length": (ABSENT, 0.3, 0.5, ABSENT, 0.5, 0.5)}, days=(0.1,) * 6),
    **history("espalier-three", "aaa", {"petal_length": (0.1, ABSENT, 0.1, ABSENT, ABSENT, 0.1)}, days=(0.9,) * 6),
    **history("espalier-threecalm", "aaa", {"petal_length": (0.9, ABSENT, 0.9, ABSENT, ABSENT, 0.9)}, days=CALM),
    **history("espalier-threenan", "aaa", {"petal_length": (0.1, math.nan, 0.1, 0.1, ABSENT, ABSENT)}, days=(0.9,) * 6),
    **history("espalier-zero", "aaa", {"petal_length": (0.0,) * 6}, days=(0.9,) * 6),
    # A quiet night after a busy day.
    **history("espalier-night", "aaa", {"petal_length": (0.9, 0.9, 0.9, ABSENT, ABSENT, ABSENT)}, days=(0.4,) * 6),
    **history("espalier-both", "aaa", {"petal_length": (0.9,) * 6, "petal_width": CALM}, days=(0.9,) * 6),
    **history("espalier-gaps", "aaa", {"petal_length": (0.5, ABSENT, 0.5, 0.5, ABSENT, 0.5)}),
    **history("espalier-sparse", "aaa", {"petal_length": (0.5, ABSENT, 0.5, ABSENT, ABSENT, 0.5)}, classes=()),
    **history("espalier-partly", "aaa", {"rare": (ABSENT, ABSENT, 0.5), "petal_length": CALM}),
    **history("espalier-nan", "aaa", {"petal_length": (math.nan,) * 6}, classes=(math.nan,) * 6),
    **history("espalier-canary", "old", {"petal_length": CALM}),
    **history("espalier-canary", "new", {"petal_length": (0.3,) * 6}),
    # Two models with the same version, and with a feature of the same name.
    **history("espalier-two", "aaa", {"petal_length": CALM}),
    **history("espalier-two", "aaa", {"petal_length": (0.3,) * 6}, model="wine"),
}  # fmt: skip


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with serving(HISTORIES, tmp_path_factory.mktemp("prometheus")) as server:
        yield server


def command(*options: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monitoring.drift", *map(str, options)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def ask(prometheus: Prometheus, namespace: str, *options: object) -> subprocess.CompletedProcess[str]:
    return command(
        "--prometheus", prometheus.address, "--at", NOW, "--namespace", f"espalier-{namespace}", *options
    )


def lines(done: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """The cells of each row by its first."""
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in done.stdout.splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) > 1}


@pytest.mark.parametrize(
    "namespace", ["calm", "nearly", "over", "slowcalm", "slownearly", "slowover", "four", "threecalm", "zero"]
)
def test_no_drift(prometheus: Prometheus, namespace: str) -> None:
    done = ask(prometheus, namespace)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        "No drift: no index is above 0.2 in 4 of the last 6 windows, the newest until 2023-11-14 22:00 UTC."
    )


def test_drift_in_a_feature(prometheus: Prometheus, tmp_path: Path) -> None:
    done = ask(prometheus, "drifted", "--json", tmp_path / "out/drift.json")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[0] == (
        "In drifted, model iris, version aaa: 5,000 predictions in the newest window, 100,000 in 24 h"
    )
    assert lines(done) == {
        "feature": ["PSI newest", "PSI 24 h", "judged by", "above 0.2", "verdict"],
        "petal_length": ["0.500", "0.111", "hours", "4 of 6", "DRIFT"],
        "petal_width": ["0.060", "0.111", "hours", "0 of 6", "no drift"],
        CLASSES: ["0.060", "0.060", "hours", "0 of 6", "no drift"],
    }
    assert done.stdout.splitlines()[-1].startswith(
        "Drift: petal_length (above 0.2 in 4 of the last 6 windows"
    )
    assert "\x1b" not in done.stdout
    written = json.loads((tmp_path / "out/drift.json").read_bytes())
    assert written["verdict"] == "drift"
    assert written["versions"][0]["rows"][0]["psi"] == [0.1, 0.21, 0.3, 0.1, 0.4, 0.5]
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["drift.json"]


def test_drift_in_the_classes_alone(prometheus: Prometheus) -> None:
    done = ask(prometheus, "mix")
    assert done.returncode == 1
    assert lines(done)[CLASSES] == ["0.900", "0.900", "hours", "4 of 6", "DRIFT"]


def test_gaps_count_as_not_beyond_and_are_said(prometheus: Prometheus) -> None:
    done = ask(prometheus, "gaps")
    assert done.returncode == 1
    assert lines(done)["petal_length"][3:] == ["4 of 6 (2 unknown)", "DRIFT"]


def test_what_cannot_be_judged_is_named_beside_what_can(prometheus: Prometheus) -> None:
    done = ask(prometheus, "partly")
    assert done.returncode == 0
    assert lines(done)["rare"][-1] == "too few figures"
    assert done.stdout.splitlines()[-1].endswith("Too few figures to judge: rare.")


@pytest.mark.slow
def test_each_version_is_judged_by_itself(prometheus: Prometheus) -> None:
    done = ask(prometheus, "canary")
    assert done.returncode == 1
    assert "In canary, model iris, version new: " in done.stdout
    assert "In canary, model iris, version old: " in done.stdout
    assert ask(prometheus, "canary", "--model-version", "old").returncode == 0
    assert ask(prometheus, "canary", "--model-version", "new").returncode == 1


@pytest.mark.slow
def test_each_model_is_judged_by_itself(prometheus: Prometheus, tmp_path: Path) -> None:
    both = ask(prometheus, "two", "--json", tmp_path / "drift.json")
    assert both.returncode == 1
    assert [line for line in both.stdout.splitlines() if line.startswith("In two, ")] == [
        f"In two, model {model}, version aaa: 5,000 predictions in the newest window, 100,000 in 24 h"
        for model in ("iris", "wine")
    ]
    assert both.stdout.splitlines()[-1].startswith("Drift: wine petal_length (above 0.2")
    written = json.loads((tmp_path / "drift.json").read_bytes())
    assert [each["model"] for each in written["versions"]] == ["iris", "wine"]
    calm, drifted = (ask(prometheus, "two", "--model", model) for model in ("iris", "wine"))
    assert (calm.returncode, drifted.returncode) == (0, 1)
    assert "wine" not in calm.stdout
    assert drifted.stdout.splitlines()[-1].startswith("Drift: petal_length (above 0.2")


@pytest.mark.slow
def test_the_rule_of_the_verdict_can_be_another(prometheus: Prometheus) -> None:
    assert ask(prometheus, "nearly", "--windows", "3/6").returncode == 1
    assert ask(prometheus, "nearly", "--threshold", "0.19").returncode == 1
    assert ask(prometheus, "over", "--windows", "4/10").returncode == 1
    assert ask(prometheus, "drifted", "--threshold", "0.45").returncode == 0


@pytest.mark.parametrize(
    ("namespace", "said"),
    [
        ("quiet", "error: too few predictions: 0 of the last 6 windows have an index, 0 have one of the day, and 4 "
                  "are needed; predictions in the newest: 12 by iris aaa in quiet"),
        ("sparse", "error: too few predictions: 3 of the last 6 windows have an index, 1 have one of the day"),
        ("nan", "error: too few predictions: 0 of the last 6 windows"),
    ],
)  # fmt: skip
def test_too_little_to_tell(prometheus: Prometheus, namespace: str, said: str, tmp_path: Path) -> None:
    done = ask(prometheus, namespace, "--markdown", tmp_path / "drift.md")
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "drift.md").read_text().startswith("Drift could not be judged: too few predictions")


@pytest.mark.slow
def test_where_hours_are_too_quiet_the_day_judges(prometheus: Prometheus, tmp_path: Path) -> None:
    done = ask(prometheus, "slow", "--markdown", tmp_path / "drift.md", "--json", tmp_path / "drift.json")
    assert done.returncode == 1, done.stderr
    assert lines(done)["petal_length"] == ["none", "0.400", "days", "4 of 6", "DRIFT"]
    assert lines(done)[CLASSES] == ["none", "0.060", "days", "0 of 6", "no drift"]
    said = "Drift: petal_length by the day (above 0.2 in 4 of the last 6 windows"
    assert done.stdout.splitlines()[-1].startswith(said)
    assert (tmp_path / "drift.md").read_text().startswith(said)
    (row, _) = json.loads((tmp_path / "drift.json").read_bytes())["versions"][0]["rows"]
    assert (row["judged_by"], row["psi_days"], row["psi"]) == ("days", list(SIX_DAYS), [None] * 6)
    assert ask(prometheus, "slow", "--windows", "5/6").returncode == 0
    assert ask(prometheus, "slow", "--threshold", "0.3").returncode == 0


@pytest.mark.parametrize(
    ("namespace", "said"),
    [
        ("slowgaps", ["none", "0.500", "days", "4 of 6 (2 unknown)", "DRIFT"]),
        ("four", ["0.500", "0.900", "hours", "3 of 6 (2 unknown)", "no drift"]),
        ("three", ["0.100", "0.900", "days", "6 of 6", "DRIFT"]),
        ("threecalm", ["0.900", "0.060", "days", "0 of 6", "no drift"]),
        ("threenan", ["none", "0.900", "days", "6 of 6", "DRIFT"]),
        ("night", ["none", "0.400", "days", "6 of 6", "DRIFT"]),
    ],
)
def test_the_hours_judge_where_four_of_them_can(
    prometheus: Prometheus, namespace: str, said: list[str]
) -> None:
    assert lines(ask(prometheus, namespace))["petal_length"] == said


def test_a_day_that_has_only_begun_is_shown_and_not_judged(prometheus: Prometheus, tmp_path: Path) -> None:
    done = ask(prometheus, "daily", "--markdown", tmp_path / "drift.md", "--json", tmp_path / "drift.json")
    assert done.returncode == 2
    assert done.stderr.endswith(
        "in the newest: 40 by iris aaa in daily. Over 24 h these are above 0.2: petal_length 0.350\n"
    )
    assert lines(done)["petal_length"] == [
        "none",
        "0.350",
        "neither",
        "0 of 6 (6 unknown)",
        "too few figures",
    ]
    written = (tmp_path / "drift.md").read_text()
    assert written.startswith(
        "Drift could not be judged: too few predictions: 0 of the last 6 windows have an index, "
        "3 have one of the day"
    )
    assert "| petal_length | none | 0.350 | neither | 0 of 6 (6 unknown) | too few figures |" in written
    assert (
        json.loads((tmp_path / "drift.json").read_bytes())["versions"][0]["rows"][0]["psi_days"][-1] == 0.35
    )


def test_the_rules_are_not_loaded(prometheus: Prometheus) -> None:
    done = ask(prometheus, "nowhere")
    assert done.returncode == 2
    assert done.stderr == (
        "error: the rule that records espalier:feature_psi:1h is not loaded: load monitoring/rules/drift.yaml\n"
    )


RULES = """\
groups:
  - name: drift
    rules:
      - record: espalier:feature_psi:1h
        expr: {expression}
"""


@pytest.mark.slow
def test_no_such_series_names_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES.format(expression="absent_series"))
    with serving(HISTORIES, tmp_path, [tmp_path / "rules.yaml"]) as loaded:
        done = ask(loaded, "clam")
        assert done.returncode == 2
        assert (
            "no series espalier:predictions:increase1h with namespace=espalier-clam: there is " in done.stderr
        )
        assert "namespace=espalier-calm, namespace=espalier-canary" in done.stderr
        done = ask(loaded, "calm", "--model", "vine")
        assert done.returncode == 2
        assert "with namespace=espalier-calm, model=vine: there is model=iris, model=wine" in done.stderr
        done = command("--prometheus", loaded.address, "--at", "2001-01-01")
        assert done.returncode == 2
        assert done.stderr.endswith("is the service scraped?\n")


def test_prometheus_is_not_there(tmp_path: Path) -> None:
    done = command(
        "--prometheus",
        "http://127.0.0.1:1",
        "--markdown",
        tmp_path / "drift.md",
        "--json",
        tmp_path / "d.json",
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: Prometheus at http://127.0.0.1:1 cannot be reached: ")
    assert len(done.stderr.splitlines()) == 1
    # This goes into a pull request: it does not say where Prometheus is.
    assert (
        tmp_path / "drift.md"
    ).read_text() == "Drift could not be judged: Prometheus could not be asked.\n"
    assert json.loads((tmp_path / "d.json").read_bytes())["verdict"] == "unknown"


@pytest.mark.slow
def test_the_address_and_the_token_may_come_from_the_environment(tmp_path: Path) -> None:
    where = {"PROMETHEUS_URL": "http://prometheus.example", "PROMETHEUS_TOKEN": "hidden"}
    done = command(**where)
    assert done.returncode == 2
    assert "http://prometheus.example would get the token unencrypted" in done.stderr
    assert "hidden" not in done.stderr
    assert "--prometheus" in command(PROMETHEUS_URL="").stderr
    done = command("--token-file", tmp_path / "absent", **where)
    assert done.stderr.startswith("error: cannot read the token from ")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--windows", "6/4"),
        ("--windows", "0/4"),
        ("--windows", "4"),
        ("--windows", "1/999"),
        ("--threshold", "0"),
        ("--threshold", "nan"),
        ("--threshold", "x"),
        ("--window", "0h"),
        ("--window", "1 hour"),
        ("--at", "yesterday"),
    ],
)
def test_what_makes_no_sense(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        drift._parser().parse_args(["--prometheus", "http://127.0.0.1:9090", option, value])
    assert caught.value.code == 2
    assert f"argument {option}: {value!r}" in capsys.readouterr().err


# Beside the alert.

RULES_FILE = ROOT / "monitoring/rules/drift.yaml"
ALERTS = {
    (rule["alert"], rule["labels"]["window"]): rule["expr"]
    for group in yaml.safe_load(RULES_FILE.read_text())["groups"]
    for rule in group["rules"]
    if rule.get("alert", "").endswith("Drift")
}


@pytest.mark.parametrize("alert", ["EspalierFeatureDrift", "EspalierClassDrift"])
def test_its_numbers_are_the_alerts(alert: str) -> None:
    name = drift.FEATURE_PSI if alert == "EspalierFeatureDrift" else drift.CLASS_PSI
    limits = drift.alert_limits()
    looks, k = f"[{limits.windows - 1}h59m59s:1h]", limits.beyond
    assert ALERTS[alert, "1h"] == f"count_over_time(({name}:1h > {limits.threshold}){looks}) >= {k}"
    assert ALERTS[alert, "1d"].splitlines() == [
        f"count_over_time(({name}:24h > {limits.threshold}){looks}) >= {k}",
        "unless",
        f"count_over_time(({name}:1h >= 0){looks}) >= {k}",
    ]
    assert drift.HOUR == 3600


def test_its_series_are_recorded_by_the_rules() -> None:
    recorded = {
        rule.get("record")
        for group in yaml.safe_load(RULES_FILE.read_text())["groups"]
        for rule in group["rules"]
    }
    asked = {f"{name}:{time}" for name in (drift.FEATURE_PSI, drift.CLASS_PSI) for time in ("1h", "24h")}
    asked |= {f"{drift.PREDICTIONS}:increase{time}" for time in ("1h", "24h")}
    assert asked <= recorded


DRIFTING = {
    *((name, "1h") for name in ("drifted", "mix", "gaps", "canary", "fourdrift", "both", "two")),
    *((name, "1d") for name in ("slow", "slowmix", "slowgaps", "three", "threenan", "night")),
}


def test_it_finds_what_the_alert_finds(prometheus: Prometheus) -> None:
    """In every history, at each minute of the hour, for every feature and for the classes: one alert or none."""
    windows = {"hours": "1h", "days": "1d"}
    with client.Prometheus(prometheus.address) as asked:
        # The last instants of the hour, and its first, are those at which a range may have a window more or less.
        for at in (END, END + 1, NOW, END + 3540, END + 3599, *range(END - 3 * 3600 - 30, END, 1790)):
            alerting = sorted(
                (
                    *(each.labels[name] for name in ("namespace", "model", "model_version")),
                    each.labels.get("feature", CLASSES),
                    window,
                )
                for (_, window), expression in ALERTS.items()
                for each in asked.query(expression, at)
            )
            report = drift.read(asked, {}, drift.alert_limits(), at=at)
            drifting = sorted(
                (
                    version.namespace,
                    version.model,
                    version.model_version,
                    row.name,
                    windows[row.judge(report.limits) or ""],
                )
                for version, row in report.rows("drift")
            )
            assert drifting == alerting, at
            assert len({each[:4] for each in alerting}) == len(alerting), "both alerts for one series"
            if at == NOW:
                assert report.verdict == "drift"
                assert {
                    (name.removeprefix("espalier-"), window) for name, _, _, _, window in drifting
                } == DRIFTING


# The logic alone.

FIGURES = st.one_of(st.none(), st.floats(0, 1), st.just(0.2), st.just(math.nan))
LIMITS = st.integers(1, 8).flatmap(
    lambda n: st.builds(Limits, st.sampled_from([0.1, 0.2, 0.5]), st.integers(1, n), st.just(n))
)
NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text("_*~`|<>[]()!#@-+\\ \nab", max_size=12),
    st.sampled_from(
        [
            CLASSES,
            f"'{CLASSES}'",
            "_a_ __b__",
            "a*b*c",
            "http://a.example/b",
            "www.a.example",
            "a@b.example",
            "<b>a</b>",
        ]
    ),
)


Recorded = dict[tuple[str, str], tuple[list[float | None], list[float | None]]]
"""By version and feature, the hours' and the days' figures."""


@st.composite
def reports(draw: st.DrawFn) -> tuple[Report, Recorded]:
    """A report made of recorded series, and what was recorded."""
    limits = draw(LIMITS)
    recorded = draw(
        st.dictionaries(
            st.tuples(st.sampled_from(["aaa", "bbb"]), NAMES),
            st.tuples(*[st.lists(FIGURES, min_size=limits.windows, max_size=limits.windows)] * 2),
            max_size=5,
        )
    )
    hours, days = (
        [
            Series(
                {"namespace": "n", "environment": "e", "model_version": version, "feature": name},
                tuple((7200.0 + 3600 * i, value) for i, value in enumerate(both[which]) if value is not None),
            )
            for (version, name), both in recorded.items()
        ]
        for which in (0, 1)
    )
    report = gather(
        features=hours,
        features_day=days,
        classes=[],
        classes_day=[],
        predictions=[],
        predictions_day=[],
        end=7200 + 3600 * (limits.windows - 1),
        window=3600,
        limits=limits,
    )
    return report, recorded


@given(reports())
def test_the_verdict_is_k_of_n(made: tuple[Report, Recorded]) -> None:
    report, recorded = made
    limits, expected = report.limits, {}
    for names, both in recorded.items():
        hours, days = ([v for v in values if v is not None and not math.isnan(v)] for values in both)
        figures = hours if len(hours) >= limits.beyond else days
        if sum(figure > limits.threshold for figure in figures) >= limits.beyond:
            expected[names] = "drift"
        else:
            expected[names] = "none" if len(figures) >= limits.beyond else "unknown"
    found = {
        (version.model_version, row.feature): row.verdict(limits)
        for version in report.versions
        for row in version.rows
    }
    assert found == expected
    whole = "drift" if "drift" in found.values() else "none" if "none" in found.values() else "unknown"
    assert report.verdict == whole
    for version in report.versions:
        counts = [row.beyond(limits) for row in version.rows]
        assert counts == sorted(counts, reverse=True), "the worst comes first"


@pytest.mark.slow
@given(reports())
def test_every_row_is_shown_everywhere_whatever_it_is_called(
    made: tuple[Report, Recorded],
) -> None:
    report, recorded = made
    json.loads(json.dumps(drift.as_json(report), allow_nan=False))
    html = github_flavored_markdown_to_html(drift.markdown(report))
    assert html.count("<tr>") == len(recorded) + len(report.versions)
    assert not any(f"<{tag}" in html for tag in ("a ", "img", "em", "code", "h1", "script", "ul", "ol"))
    console = Console(width=200, no_color=True, record=True, file=StringIO())
    drift.show(report, console)
    console.export_text()


def test_a_feature_with_the_name_of_the_classes_row_is_another_row() -> None:
    def series(value: float, **labels: str) -> list[Series]:
        return [Series({"model_version": "aaa", **labels}, tuple((3600.0 * i, value) for i in range(1, 7)))]

    report = gather(
        features=series(0.9, feature=CLASSES) + series(0.1, feature=f"'{CLASSES}'"),
        features_day=[],
        classes=series(0.1),
        classes_day=[],
        predictions=[],
        predictions_day=[],
        end=6 * 3600,
        window=3600,
        limits=drift.alert_limits(),
    )
    (version,) = report.versions
    verdicts = {(row.name, row.feature): row.verdict(report.limits) for row in version.rows}
    assert verdicts == {
        ("'(predictions)'", "(predictions)"): "drift",
        ("(predictions)", None): "none",
        ("''(predictions)''", "'(predictions)'"): "none",
    }
    assert drift.conclusion(report).startswith("Drift: '(predictions)' (")
    rows = drift.as_json(report)["versions"][0]["rows"]  # type: ignore[index]
    assert [(row["name"], row["classes"]) for row in rows] == [
        ("(predictions)", False),
        ("'(predictions)'", False),
        (None, True),
    ]


def test_a_terminal_gets_colours() -> None:
    console = Console(width=100, force_terminal=True, record=True, file=StringIO())
    version = Version("n", "e", "m", "v", 10, None, (Row("petal", (0.9,) * 6, (None,) * 6),))
    drift.show(Report(END, 3600, drift.alert_limits(), (version,)), console)
    assert "DRIFT" in (text := console.export_text(styles=True))
    assert "\x1b[31m" in text

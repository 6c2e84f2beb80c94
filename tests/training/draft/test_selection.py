"""The gate that a draft has: a reasonable model passes it and a useless one does not, without an edit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract import read_bundle
from tests.training.project import ROOT, Project
from training.base import config
from training.base.documents import parse_yaml
from training.base.section import Settings
from training.data.dataset import TEST_FILE, read_profile, read_split
from training.draft import command as draft
from training.draft import selection
from training.results import leaderboard, scores
from training.sections.select import GateSettings, SelectSettings

DRAFTED = ("name", "data", "schema", "select", "card")
shares = st.floats(0, 1)


class Selecting(Settings):
    select: SelectSettings


def gate_of(text: str, folder: Path) -> GateSettings:
    (folder / "drafted.yaml").write_text(text)
    return config.load(Selecting, folder / "drafted.yaml").select.gate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "target"),
    [("sklearn:wine", "target"), (str(ROOT / "models/penguins/data/source/penguins.csv"), "species")],
)
def test_draft_and_run_pass_without_an_edit(project: Project, source: str, target: str) -> None:
    algorithms = ("logistic_regression", "decision_tree")
    blocks = project.params()["train"]["algorithms"]
    project.change(train__algorithms={name: blocks[name] for name in algorithms})
    kept = {key: value for key, value in project.params().items() if key not in DRAFTED}

    project.run("draft", source, "--target", target, "--write")
    assert {key: value for key, value in project.params().items() if key not in DRAFTED} == kept
    project.run("fetch")
    project.run("prepare")
    for name in algorithms:
        project.run("train", name)
    project.run("select")
    project.run("leaderboard")
    assert read_bundle(project.root / "model").manifest.target == target
    assert "This card is not finished" in Path("MODEL_CARD.md").read_text()

    # What says nothing does not pass: the most frequent class, or the classes' shares, whatever the row.
    gate = config.load(Selecting).select.gate
    profile, test = read_profile(), read_split(TEST_FILE, read_profile())
    always = np.full(len(test), int(np.argmax(profile.class_shares)))
    useless = scores.point(
        scores.of("classification"), test.target, (always, np.tile(profile.class_shares, (len(test), 1)))
    )
    assert all(useless[metric] < least for metric, least in gate.minimum.items())
    chance = np.random.default_rng(1).permutation(test.target)
    guessed = scores.point(
        scores.of("classification"), test.target, (chance, np.eye(len(profile.classes))[chance])
    )
    assert all(guessed[metric] < least for metric, least in gate.minimum.items())
    assert guessed["log_loss"] > gate.maximum["log_loss"] >= leaderboard.read().rows[0].test["log_loss"].value


def test_where_nothing_can_be_learnt_the_draft_says_so(project: Project) -> None:
    random = np.random.default_rng(0)
    rows = "".join(f"{random.random():.3f},{'ab'[random.integers(2)]}\n" for _ in range(200))
    (project.root / "data/source/noise.csv").write_text("x,kind\n" + rows)
    text = draft.draft("data/source/noise.csv", "kind", {})
    drafted = selection.sections(text)
    assert "hardly better than guessing" in drafted
    assert gate_of(drafted, project.root).minimum == {"f1_macro": 0.5}
    assert drafted == selection.sections(text)


@pytest.mark.long("training", "tests/training/draft")
def test_limits_grow_with_the_data(project: Project) -> None:
    """A wide table with few rows has a gate that its models fit in."""
    random = np.random.default_rng(0)
    features, rows = 300, 60
    names = [f"f{each}" for each in range(features)]
    lines = [
        ",".join([*(f"{value:.2f}" for value in random.normal(row % 2, 1, features)), "ab"[row % 2]])
        for row in range(rows)
    ]
    (project.root / "data/source/wide.csv").write_text("\n".join([",".join([*names, "kind"]), *lines]))
    wide = gate_of(selection.sections(draft.draft("data/source/wide.csv", "kind", {})), project.root)
    iris = gate_of(selection.sections(draft.draft("sklearn:iris", "species", {})), project.root)
    assert wide.maximum_latency_ms == 11
    assert iris.maximum_latency_ms == 5
    assert wide.maximum_bytes is not None
    assert wide.maximum_bytes >= 45 * features * 8
    # One of 15 test rows; Iris has 38 and three classes of 12 or 13.
    assert wide.production.maximum_drop["accuracy"] == 0.07
    assert iris.production.maximum_drop == {"accuracy": 0.03, "f1_macro": 0.03}


@given(shares, shares, st.floats(0, 0.5))
def test_the_least_is_between_guessing_and_halfway(reached: float, guessed: float, deviation: float) -> None:
    least = selection.least(reached, guessed, deviation)
    assert least >= guessed - 1e-9
    assert least <= max((reached + guessed) / 2, guessed + 0.01) + 1e-9
    assert least <= max(reached - 2 * deviation, guessed + 0.01) + 1e-9


def test_a_rare_class_gets_thresholds_that_a_model_can_reach(project: Project) -> None:
    """Three in a hundred: guessing is right in 97 of 100, and the log losses of good and bad models are small."""
    random = np.random.default_rng(0)
    value = random.normal(size=3000)
    label = np.where(value + random.normal(scale=0.1, size=3000) > 2, "yes", "no")
    table = "\n".join(["value,label", *(f"{v:.3f},{c}" for v, c in zip(value, label, strict=True))])
    (project.root / "data/source/rare.csv").write_text(table)
    drafted = selection.sections(draft.draft("data/source/rare.csv", "label", {}))
    select = parse_yaml(drafted)["select"]
    assert select["tie_log_loss"] in (0.01, 0.02)
    guess = max((label == "no").mean(), (label == "yes").mean())
    assert guess < select["gate"]["minimum"]["accuracy"] < guess + 0.01
    assert "tie_log_loss" not in selection.sections(draft.draft("sklearn:iris", "species", {}))


@pytest.mark.parametrize(
    ("rows", "low", "high"), [(100, 0.03, 0.06), (2000, 0.006, 0.02), (200_000, 0.005, 0.005)]
)
def test_models_tie_within_what_chance_does(rows: int, low: float, high: float) -> None:
    """One standard error of the score: on few rows a difference of a few hundredths says nothing."""
    assert low <= selection.tie(baseline(f1=0.8, classes=2), np.array([rows / 2, rows / 2])) <= high


@given(shares, st.integers(2, 10), st.integers(1, 10_000))
def test_a_tie_is_at_most_a_quarter_of_what_was_learnt(f1: float, classes: int, rows: int) -> None:
    found = baseline(f1, classes)
    tie = selection.tie(found, np.full(classes, rows))
    assert tie == selection.SMALLEST_TIE or 4 * tie <= f1 - found.guess + 0.003


def baseline(f1: float, classes: int) -> selection.Baseline:
    return selection.Baseline(
        name="decision_tree",
        rows=100,
        f1=f1,
        accuracy=f1,
        guess=1 / classes,
        majority=1 / classes,
        entropy=float(np.log(classes)),
    )


def test_a_tie_in_log_loss_is_not_drafted_from_another_score(project: Project) -> None:
    text = draft.draft("sklearn:iris", "species", {})
    assert 0.01 <= drafted_tie(text, project) <= 0.05
    project.change(evaluate__score="log_loss")
    assert drafted_tie(text, project) == selection.SMALLEST_TIE


def drafted_tie(text: str, project: Project) -> float:
    (project.root / "drafted.yaml").write_text(selection.sections(text))
    return config.load(Selecting, project.root / "drafted.yaml").select.tie


def test_the_threshold_for_a_rare_class_is_tuned_where_half_never_reaches_it(project: Project) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=1500)
    rare = x + random.normal(scale=2, size=1500) > 4.5
    source = project.root / "data/source/rare.csv"
    source.write_text(
        "x,kind\n" + "".join(f"{a:.3f},{'ill' if b else 'well'}\n" for a, b in zip(x, rare, strict=True))
    )
    text = draft.draft(str(source), "kind", {})
    assert parse_yaml(selection.sections(text))["decision"] == {"threshold": "tuned"}
    project.run("draft", str(source), "--target", "kind", "--write")
    assert project.params()["decision"] == {"threshold": "tuned"}

    own = {"threshold": 0.2, "positive": "ill"}
    project.change(decision=own)
    project.run("draft", str(source), "--target", "kind", "--write")
    assert project.params()["decision"] == own


def test_a_class_that_is_answered_or_common_keeps_its_threshold(project: Project) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=1500)
    for kinds in (np.where(x > 2, "ill", "well"), random.choice(["ill", "well"], 1500)):
        source = project.root / "data/source/a.csv"
        source.write_text("x,kind\n" + "".join(f"{a:.3f},{b}\n" for a, b in zip(x, kinds, strict=True)))
        assert "decision" not in parse_yaml(selection.sections(draft.draft(str(source), "kind", {})))

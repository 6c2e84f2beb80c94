"""Who wins, by which rule, what the gate says, and what the bundle holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from app.contract import Explanation, ModelFile, Score, read_bundle, sha256
from tests.training.project import Project
from training.base import config
from training.base.errors import DataError, GateError
from training.data import dataset
from training.data.dataset import read_profile
from training.results import leaderboard, report
from training.results.board import LEADERBOARD_FILE
from training.results.report import Explained, FoldScores, Report
from training.sections.select import GateSettings
from training.select import gate


def variant(base: Report, algorithm: str, cv: float, numbers: int, log_loss: float = 0.2) -> Report:
    scores = {"log_loss": log_loss, base.score: cv}
    folds = {name: FoldScores(folds=(value,), mean=value, std=0.01) for name, value in scores.items()}
    return base.model_copy(update={"algorithm": algorithm, "cv": {**base.cv, **folds}, "complexity": numbers})


def names(ranked: list[Report]) -> list[str]:
    return [each.algorithm for each in ranked]


class TestRank:
    @pytest.fixture
    def base(self, trained: Project) -> Report:
        return report.read("svm")

    def test_the_highest_score_wins(self, base: Report) -> None:
        reports = [
            variant(base, "small", 0.90, 1),
            variant(base, "best", 0.95, 9),
            variant(base, "mid", 0.92, 5),
        ]
        ranked, rule = leaderboard.rank(reports, tie=0.01, tie_log_loss=0.1)
        assert names(ranked) == ["best", "mid", "small"]
        assert rule == "highest cross-validated f1_macro"

    def test_the_simplest_wins_a_tie_and_the_rule_says_so(self, base: Report) -> None:
        reports = [
            variant(base, "best", 0.95, 900),
            variant(base, "small", 0.945, 10),
            variant(base, "far", 0.9, 1),
        ]
        ranked, rule = leaderboard.rank(reports, tie=0.005, tie_log_loss=0.1)
        assert names(ranked) == ["small", "best", "far"]
        assert "simplest of 2 models" in rule
        assert "within 0.005 of the best" in rule
        assert "tied with best" in rule

    def test_a_model_that_is_sure_of_its_mistakes_ties_with_no_other(self, base: Report) -> None:
        reports = [
            variant(base, "tree", 0.95, 10, log_loss=13.5),
            variant(base, "forest", 0.949, 900, log_loss=0.3),
            variant(base, "linear", 0.948, 50, log_loss=0.4),
            variant(base, "far", 0.9, 1, log_loss=0.1),
        ]
        ranked, rule = leaderboard.rank(reports, tie=0.005, tie_log_loss=0.1)
        assert names(ranked) == ["linear", "forest", "tree", "far"]
        assert rule.startswith("simplest of 2 models")
        assert rule.endswith("no tie with tree, whose log loss is more than 0.1 above the lowest")
        ranked, rule = leaderboard.rank(reports, tie=0.005, tie_log_loss=0.05)
        assert names(ranked)[0] == "forest"
        assert rule == (
            "lowest log loss of 3 models whose cross-validated f1_macro is within 0.005 of the best; "
            "no tie with linear, tree, whose log loss is more than 0.05 above the lowest"
        )
        assert names(leaderboard.rank(reports, tie=0.005, tie_log_loss=20)[0])[0] == "tree"

    def test_a_tie_in_everything_goes_by_name(self, base: Report) -> None:
        reports = [variant(base, "b", 0.9, 5), variant(base, "a", 0.9, 5)]
        assert names(leaderboard.rank(reports, tie=0.0, tie_log_loss=0.1)[0]) == ["a", "b"]

    def test_log_loss_is_better_when_lower(self, base: Report) -> None:
        base = base.model_copy(update={"score": "log_loss"})
        ranked, rule = leaderboard.rank(
            [variant(base, "bad", 0.9, 1), variant(base, "good", 0.1, 1)], tie=0.0, tie_log_loss=0.1
        )
        assert names(ranked) == ["good", "bad"]
        assert rule == "lowest cross-validated log_loss"

    def test_the_test_split_never_selects(self, base: Report) -> None:
        perfect = {key: Score(value=1.0, low=1.0, high=1.0) for key in base.test}
        lucky = variant(base, "lucky", 0.90, 1).model_copy(update={"test": perfect})
        assert (
            names(leaderboard.rank([lucky, variant(base, "best", 0.95, 9)], tie=0.0, tie_log_loss=0.1)[0])[0]
            == "best"
        )


class TestGate:
    @pytest.fixture
    def champion(self, trained: Project) -> Report:
        return report.read("logistic_regression")

    def test_every_missed_rule_is_named_with_its_figure(self, champion: Report) -> None:
        strict = GateSettings(
            minimum={"accuracy": 0.99}, maximum={"log_loss": 0.01}, maximum_latency_ms=1, maximum_bytes=10
        )
        missed = gate.missed(champion, 2.5, strict)
        assert list(missed) == ["minimum.accuracy", "maximum.log_loss", "maximum_latency_ms", "maximum_bytes"]
        with pytest.raises(GateError) as caught:
            gate.refuse(champion.algorithm, missed.values())
        message = str(caught.value)
        assert re.search(r"test accuracy 0\.\d+ is below select\.gate\.minimum\.accuracy 0\.99", message)
        assert re.search(r"test log loss 0\.\d+ is above select\.gate\.maximum\.log_loss 0\.01", message)
        assert "median latency in ms 2.5 is above select.gate.maximum_latency_ms 1" in message
        assert re.search(r"size in bytes \d+ is above select\.gate\.maximum_bytes 10", message)

    def test_nothing_demanded_is_nothing_missed(self, champion: Report) -> None:
        assert gate.missed(champion, 1e9, GateSettings()) == {}

    def test_a_failed_gate_leaves_the_last_bundle_and_shows_the_leaderboard(
        self, trained: Project, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = read_bundle(trained.root / "model").manifest
        champion = before.algorithm
        trained.change(select__gate={"minimum": {"accuracy": 1.0}}, name="other")
        with pytest.raises(GateError, match="won but does not pass the gate"):
            trained.run("select")
        assert read_bundle(trained.root / "model").manifest == before
        shown = capsys.readouterr().out
        refusal = "It does not pass the gate (minimum.accuracy) and is not in model/."
        assert "Leaderboard of other" in shown
        assert all(name in shown for name in trained.params()["train"]["algorithms"])
        assert refusal in shown

        # The same later on, and no report is left of what was there before.
        trained.run("leaderboard")
        assert capsys.readouterr().out == shown
        board = leaderboard.read()
        assert (board.name, board.champion, board.version) == ("other", champion, "")
        for file in ("MODEL_CARD.md", "reports/leaderboard.md"):
            text = Path(file).read_text()
            assert refusal in text
            assert "other" in text.splitlines()[0]
            assert before.version not in text
        trained.change(select__gate={})
        trained.run("select")
        assert leaderboard.read().version == read_bundle(trained.root / "model").manifest.version
        assert "does not pass" not in Path("MODEL_CARD.md").read_text()


class TestOtherData:
    """Results are shown for the data set that params.yaml declares, or not at all."""

    @pytest.mark.parametrize(
        ("changes", "declares"),
        [
            ({"name": "wine"}, "'wine' (source sklearn:iris, target species)"),
            ({"data__source": "sklearn:wine"}, "'iris' (source sklearn:wine, target species)"),
            ({"schema__target": "petal_width"}, "'iris' (source sklearn:iris, target petal_width)"),
        ],
    )
    def test_the_leaderboard_of_another_is_refused(
        self, trained: Project, changes: dict[str, str], declares: str
    ) -> None:
        trained.change(**changes)
        with pytest.raises(DataError) as caught:
            trained.run("leaderboard")
        message = str(caught.value)
        assert "reports/leaderboard.json is of 'iris' (source sklearn:iris, target species)" in message
        assert f"params.yaml declares {declares}: run `make repro`" in message

    def test_data_that_were_read_again_make_it_old(self, trained: Project) -> None:
        path = Path("data/raw.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": "0" * 64}))
        with pytest.raises(DataError, match="data that have changed since"):
            trained.run("leaderboard")
        path.unlink()  # as in a fresh clone
        trained.run("leaderboard")

    def test_a_run_that_fails_leaves_no_reports_of_another(self, trained: Project) -> None:
        reports = [
            Path(name) for name in ("MODEL_CARD.md", "reports", "metrics") if (trained.root / name).exists()
        ]
        assert len(reports) == 3
        trained.run("prepare")
        assert Path("MODEL_CARD.md").exists()
        assert list(Path("metrics").iterdir())

        trained.change(data__source="sklearn:wine")
        trained.run("fetch")
        with pytest.raises(DataError, match="breaks the schema"):
            trained.run("prepare")
        left = [file for each in reports for file in (each, *each.rglob("*")) if file.is_file()]
        assert left == [config.SETTINGS_FILE], "which holds parameters and no results"
        assert read_bundle(trained.root / "model").manifest.name == "iris"

    def test_reports_of_another_task_go(self, trained: Project) -> None:
        board = json.loads(LEADERBOARD_FILE.read_text())
        LEADERBOARD_FILE.write_text(json.dumps({**board, "task": "regression"}))
        trained.run("prepare")
        assert not Path("MODEL_CARD.md").exists()

    def test_reports_of_an_older_release_stay(self, trained: Project) -> None:
        board = json.loads(LEADERBOARD_FILE.read_text())
        for key in ("source", "target", "data", "missed"):
            del board[key]
        LEADERBOARD_FILE.write_text(json.dumps(board))
        trained.run("prepare")
        assert Path("MODEL_CARD.md").exists()


class TestBundle:
    def test_it_is_the_champions_file_with_its_figures(self, trained: Project) -> None:
        bundle = read_bundle(trained.root / "model")
        manifest = bundle.manifest
        champion = report.read(manifest.algorithm)
        assert bundle.model == (trained.root / "candidates" / manifest.algorithm / "model.onnx").read_bytes()
        assert manifest.metrics["test"] == champion.test
        assert manifest.metrics["cv"]["f1_macro"].value == champion.cv["f1_macro"].mean
        profile = read_profile()
        assert manifest.features == profile.features
        assert manifest.data.sha256 == profile.origin.sha256
        assert manifest.version == manifest.digest.removeprefix("sha256:")[:12]

    def test_examples_are_test_rows_of_every_class(self, trained: Project) -> None:
        import pandas as pd

        manifest = read_bundle(trained.root / "model").manifest
        rows = pd.read_parquet("data/test.parquet").to_dict("records")
        assert {each.label for each in manifest.examples} == set(manifest.classes)
        for each in manifest.examples:
            assert {**each.values, manifest.target: each.label} in rows

    def test_the_version_follows_the_content(self, trained: Project) -> None:
        first = read_bundle(trained.root / "model").manifest
        trained.run("select")
        assert read_bundle(trained.root / "model").manifest == first
        trained.change(name="renamed")
        trained.run("select")
        assert read_bundle(trained.root / "model").manifest.version != first.version

    def test_nothing_volatile_is_written(self, trained: Project) -> None:
        text = (trained.root / "model/model.json").read_text() + (trained.root / "MODEL_CARD.md").read_text()
        text += (trained.root / "reports/leaderboard.json").read_text()
        assert not re.search(r"\b20[2-9]\d-\d\d|latency|hostname", text)
        assert str(trained.root) not in text


class TestPapers:
    def test_leaderboard_lists_every_algorithm_best_first(self, trained: Project) -> None:
        board = leaderboard.read()
        assert {row.algorithm for row in board.rows} == set(trained.params()["train"]["algorithms"])
        assert board.rows[0].algorithm == board.champion
        text = Path("reports/leaderboard.md").read_text()
        assert board.rule in text
        positions = [text.index(f"| {row.algorithm} |") for row in board.rows]
        assert positions == sorted(positions)

    def test_the_table_fits_a_terminal(self, trained: Project, capsys: pytest.CaptureFixture[str]) -> None:
        trained.monkeypatch.setenv("COLUMNS", "80")
        trained.run("leaderboard")
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= 80
        assert "logistic_regression" in shown
        assert "…" not in shown

    def test_lost_rows_are_said_at_the_end_and_in_the_papers(
        self, trained: Project, capsys: pytest.CaptureFixture[str]
    ) -> None:
        profile = dataset.read_profile()
        changed = {"duplicates_dropped": 2, "without_target": 1, "classes_dropped": {"odd": 1}}
        dataset.write_profile(profile.model_copy(update=changed))
        trained.run("select")
        trained.run("leaderboard")
        shown = " ".join(capsys.readouterr().out.split())
        for path in ("MODEL_CARD.md", "reports/leaderboard.md"):
            text = Path(path).read_text()
            assert "2 of 150 rows (1.3%) equal an earlier one and were dropped" in text
            assert "1 of 150 rows (0.7%) are of the class 'odd'" in text
            assert "have no species" not in text
        assert "2 of 150 rows (1.3%) equal an earlier one and were dropped" in shown
        assert "are of the class 'odd', which the model does not know" in shown

    def test_the_card_says_what_a_reader_needs(self, trained: Project) -> None:
        card = Path("MODEL_CARD.md").read_text()
        manifest = json.loads(Path("model/model.json").read_text())
        assert manifest["version"] in card
        assert trained.params()["card"]["limits"][0] in card
        for feature in manifest["features"]:
            assert f"| {feature['name']} |" in card
        accuracy = manifest["metrics"]["test"]["accuracy"]
        assert f"{accuracy['value']:.4f} [{accuracy['low']:.4f}, {accuracy['high']:.4f}]" in card


class TestExplanations:
    def write(self, name: str, cv: float, *, explained: bool) -> None:
        """A report of a candidate as if it were (not) explained, with another score."""
        found = variant(report.read(name), name, cv, 10)
        about = Explained(
            explanation=Explanation(
                file=ModelFile(sha256=sha256(b"explains"), bytes=8, opset=18), unit="log-odds", base=(0, 0, 0)
            ),
            rows=10,
            largest_difference=0,
        )
        changes = {
            "explained": about if explained else None,
            "unexplained": "" if explained else "it is made of stone",
        }
        report.write(found.model_copy(update=changes))
        Path(f"candidates/{name}/explain.onnx").write_bytes(b"explains" if explained else b"")

    @pytest.fixture
    def candidates(self, trained: Project) -> Project:
        algorithms = trained.params()["train"]["algorithms"]
        two = {name: algorithms[name] for name in ("svm", "decision_tree", "logistic_regression")}
        trained.change(explain="shap", train__algorithms=two)
        self.write("svm", 0.99, explained=False)
        self.write("logistic_regression", 0.97, explained=True)
        self.write("decision_tree", 0.95, explained=True)
        return trained

    def test_the_champion_is_one_that_can_be_explained(
        self, candidates: Project, capsys: pytest.CaptureFixture[str]
    ) -> None:
        candidates.run("select")
        bundle = read_bundle(candidates.root / "model")
        assert bundle.manifest.algorithm == "logistic_regression"
        assert bundle.explanation == b"explains"
        board = leaderboard.read()
        assert [row.algorithm for row in board.rows] == ["logistic_regression", "decision_tree", "svm"]
        sentence = "svm was left out of the choice, because it cannot be explained: it is made of stone"
        assert board.unexplained == (sentence,)
        assert f"- {sentence}" in Path("reports/leaderboard.md").read_text()
        candidates.run("leaderboard")
        assert sentence in " ".join(capsys.readouterr().out.split())

    def test_without_the_wish_all_compete(self, candidates: Project) -> None:
        candidates.change(explain="none")
        candidates.run("select")
        bundle = read_bundle(candidates.root / "model")
        assert (bundle.manifest.algorithm, bundle.explanation) == ("svm", None)
        assert not (candidates.root / "model/explain.onnx").exists()

    def test_if_none_can_be_explained_the_remedy_is_named(self, candidates: Project) -> None:
        for name in ("logistic_regression", "decision_tree"):
            self.write(name, 0.9, explained=False)
        with pytest.raises(
            GateError,
            match=r"explain: shap needs a model that can be explained, and there is none \(svm: it is made of stone; .*"
            r"add one such as logistic_regression, ridge or xgboost under train\.algorithms, or write `explain: none`",
        ):
            candidates.run("select")


def test_folders_of_removed_algorithms_go(trained: Project) -> None:
    algorithms = trained.params()["train"]["algorithms"]
    del algorithms["decision_tree"]
    trained.change(train__algorithms=algorithms)
    (trained.root / "candidates" / "notes").mkdir()
    trained.run("select")
    assert not Path("candidates/decision_tree").exists()
    assert not Path("metrics/decision_tree.json").exists()
    assert Path("candidates/notes").exists()
    assert "decision_tree" not in {row.algorithm for row in leaderboard.read().rows}


def test_without_a_report_it_says_what_to_run(trained: Project) -> None:
    Path("candidates/svm/report.json").unlink()
    with pytest.raises(DataError, match=r"candidates/svm/report\.json.*dvc repro train@svm"):
        trained.run("select")

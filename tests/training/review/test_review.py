"""What the comment of a pull request says, in real repositories, and what it must never do."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contract import Score
from common import markdown
from tests.common.test_markdown import HOSTILE, Page
from tests.tools import examples
from tests.training.repository import OVERLAY, Repository
from training.base.errors import ConfigError, GateError
from training.production.comparison import Answered, Comparison, Figure, Side
from training.production.revisions import UnreachableError
from training.remote.objects import ReplacedError
from training.review import comment
from training.review.model import Algorithm, Champion, Change, Confusion, Contestant, Review, State

pytestmark = pytest.mark.slow

GITHUB_TAKES = 65_536
REFUSED = (
    "svm won but does not pass the gate: test accuracy 0.8919 is below select.gate.minimum.accuracy 0.9. "
    "The bundle in model/ stays as it was; improve the model or change the gate in params.yaml"
)


@pytest.fixture
def branch(released: Repository) -> Repository:
    """A branch at the released commit."""
    released.git("checkout", "-q", "-b", "branch")
    return released


def reviewed(repository: Repository, *arguments: str) -> tuple[str, Any]:
    """The comment and the data."""
    repository.run("review", "--base", "main", *arguments)
    return written()


def written() -> tuple[str, Any]:
    folder = Path("build/review")
    return (folder / "review.md").read_text(), json.loads((folder / "review.json").read_text())


def first_lines(text: str) -> str:
    return text.split("<details>", maxsplit=1)[0]


class TestVerdict:
    def test_nothing_changed(self, branch: Repository) -> None:
        text, data = reviewed(branch)
        assert text.startswith("<!-- espalier-review -->\n\n### ✅ The gate passes: ")
        assert "`logistic_regression` stays champion, unchanged" in text
        assert "Neither parameters nor data changed." in text
        assert "production runs this very model" in text
        assert (data["passed"], data["outcome"]) == (True, "passes")
        assert data["parameters"] == data["data"] == []

    def test_another_champion(self, branch: Repository) -> None:
        old = branch.version()
        branch.change(train__algorithms__logistic_regression__C=0.15)
        branch.retrain("logistic_regression")
        branch.record()
        text, data = reviewed(branch)
        assert data["after"]["champion"]["algorithm"] == "svm"
        assert "`svm` takes over from `logistic_regression`" in text
        assert "| `train.algorithms.logistic_regression.C` | `1.0` | `0.15` |" in text
        assert f"Against `logistic_regression {old}` in production, on the same 37 rows: `accuracy` +" in text
        row = next(line for line in text.splitlines() if "| `logistic_regression` |" in line)
        assert re.match(r"\| 1\u00a0→\u00a0[45] \|", row)
        before, after = (
            json.loads(branch.git("show", "main:metrics/logistic_regression.json")),
            json.loads(Path("metrics/logistic_regression.json").read_text()),
        )
        assert f"{after['cv']['f1_macro'] - before['cv']['f1_macro']:+.3f}" in row
        assert f"{after['cv']['f1_macro']:.3f} ± {after['cv']['std']:.3f}" in row

    def test_a_worse_model(self, branch: Repository) -> None:
        branch.only("logistic_regression", C=0.01)
        branch.retrain()
        branch.record()
        with pytest.raises(GateError, match="is worse than logistic_regression"):
            reviewed(branch, "--fail")
        text, data = written()
        assert (data["passed"], data["outcome"]) == (False, "worse")
        assert "### ❌ The gate fails: production's model is better" in text
        top = first_lines(text)
        assert re.search(
            r"^- test log loss is 0\.\d+ higher, and select\.gate\.production\S+ allows 0\.1", top, re.M
        )
        assert "This change alters the rules of the gate itself" in top

    def test_the_branchs_own_overlay_is_not_asked(self, branch: Repository) -> None:
        branch.only("logistic_regression", C=0.01)
        branch.retrain()
        branch.record()
        branch.release()
        assert not reviewed(branch)[1]["passed"]

    @pytest.mark.parametrize("as_file", [False, True])
    def test_the_gate_refused(self, branch: Repository, tmp_path: Path, as_file: bool) -> None:
        branch.change(train__algorithms__svm__gamma=0.001, select__gate__minimum__accuracy=0.99)
        with pytest.raises(GateError) as refusal:
            branch.run("select")
        said = f"Running stage 'select':\n> python -m training.select\nerror: {refusal.value}\nERROR: failed to reproduce"
        argument = said
        if as_file:
            (tmp_path / "log").write_text(said)
            argument = str(tmp_path / "log")
        text, data = reviewed(branch, "--failure", argument)
        assert (data["passed"], data["outcome"]) == (False, "refused")
        assert "### ❌ The gate fails: the champion is not good enough" in text
        assert "below select.gate.minimum.accuracy 0.99" in first_lines(text)
        assert "Running stage" not in text
        assert data["production"] is None
        assert data["after"]["champion"] is None
        assert "`train.algorithms.svm.gamma`" in text

    def test_the_pipeline_broke(self, branch: Repository) -> None:
        text, data = reviewed(branch, "--failure", "one\n```\nlast ``` line @all")
        assert data["outcome"] == "broken"
        assert reviewed(branch, "--failure", REFUSED)[1]["outcome"] == "broken"
        assert "### ❌ The pipeline failed" in text
        assert "last ``` line @all" in text
        page = Page(text)
        assert page.tags.count("pre") == 1 + ("xychart" in text)
        assert reviewed(branch, "--failure", "")[1]["reason"] == "the pipeline failed and says nothing"

    def test_parameters_that_nobody_reproduced(self, branch: Repository) -> None:
        branch.change(train__algorithms__svm__gamma=0.001)
        text, data = reviewed(branch)
        assert (data["passed"], data["outcome"]) == (False, "undecided")
        assert "params.yaml was changed after" in first_lines(text)
        assert "svm ran: run" in Page(text).text.replace("\u200b", "")

    def test_production_out_of_reach(self, branch: Repository) -> None:
        branch.change(schema__out_of_range="accept")
        branch.run("settings")
        branch.run("prepare")
        branch.run("select")
        branch.record()
        for each in Path(".dvc/cache").rglob("*"):
            if each.is_file():
                each.unlink()
        text, data = reviewed(branch)
        assert (data["passed"], data["outcome"]) == (False, "undecided")
        assert "not in DVC's cache" in Page(first_lines(text)).text
        text, data = reviewed(branch, "--no-production")
        assert data["passed"]
        assert "Not compared with production" in text
        assert (
            "No figures of the champion before: candidates/logistic_regression/report.json ("
            in Page(text).text
        )

    def test_before_there_were_defaults(self, branch: Repository) -> None:
        """Then params.yaml said everything, and what it left out was no default of today."""
        params = branch.params()
        branch.write({key: value for key, value in params.items() if key != "split"})
        branch.git("rm", "-q", "reports/settings.json")
        branch.git("commit", "-qam", "long ago")
        branch.git("branch", "-f", "main")
        branch.write(params)
        branch.run("settings")
        branch.record()
        changed = {each["name"]: each for each in reviewed(branch)[1]["parameters"]}
        assert (changed["split.seed"]["before"], changed["split.seed"]["after"]) == (None, "7")

    def test_settings_with_the_marks_of_a_merge(self, branch: Repository) -> None:
        (branch.root / "reports/settings.json").write_text(
            '{\n<<<<<<< HEAD\n"a": 1\n=======\n"a": 2\n>>>>>>> other\n}\n'
        )
        branch.git("commit", "-qam", "merged")
        branch.git("branch", "-f", "main")
        branch.run("settings")
        with pytest.raises(ConfigError, match=r"reports/settings\.json before is not YAML"):
            reviewed(branch)

    def test_a_first_champion(self, branch: Repository) -> None:
        branch.git("checkout", "-q", "--orphan", "start")
        branch.git("rm", "-q", "-r", "--cached", ".")
        branch.git("add", "params.yaml", str(OVERLAY))
        branch.git("commit", "-qm", "start")
        branch.git("branch", "-f", "main")
        text, data = reviewed(branch, "--no-production")
        assert data["before"]["champion"] is None
        assert "is the first champion" in text
        assert "(new)" in text


class TestParts:
    def test_another_split(self, branch: Repository) -> None:
        branch.change(split__seed=8)
        branch.run("prepare")
        branch.only("logistic_regression", C=1.0)
        branch.retrain()
        branch.record()
        text, data = reviewed(branch)
        assert data["test_split_changed"]
        assert "The test split is another one" in text
        assert "the test split changed since production's model was measured" in text
        assert {"data/train.parquet (md5)", "data/test.parquet (md5)"} <= {
            each["name"] for each in data["data"]
        }

    def test_another_schema(self, branch: Repository) -> None:
        branch.change(
            data__replace={"species": {"setosa": "iris | setosa"}},
            schema__classes=["iris | setosa", "versicolor", "virginica"],
        )
        for stage in ("fetch", "prepare"):
            branch.run(stage)
        branch.only("logistic_regression", C=1.0)
        branch.retrain()
        branch.record()
        text, data = reviewed(branch)
        names = {each["name"]: each for each in data["data"]}
        assert names["class setosa"]["after"] is None
        assert names["class iris | setosa"]["before"] is None
        assert "production's model cannot be compared with this one" in text
        assert "accept_incomparable" in Page(first_lines(text)).text
        cells = [each.strip() for each in Page(text).cells]
        assert "iris | setosa" in cells
        assert not [each for each in cells if each == "setosa`"]

    def test_another_score(self, branch: Repository) -> None:
        branch.change(evaluate__score="accuracy", train__algorithms={"logistic_regression": {"C": 1.0}})
        branch.retrain()
        branch.record()
        text, data = reviewed(branch)
        assert data["score_changed"]
        assert "scores before and after do not compare" in text

    def test_types_of_parameters_are_told_apart(self, branch: Repository) -> None:
        branch.change(card__limits=["1", 1, True, None], track__timeout_seconds=300.0)
        _, data = reviewed(branch)
        changed = {each["name"]: (each["before"], each["after"]) for each in data["parameters"]}
        assert changed["card.limits"][1] == '["1", 1, true, null]'
        assert changed["track.timeout_seconds"] == ("300", "300.0")

    def test_values_of_a_pull_request_do_nothing(self, branch: Repository) -> None:
        branch.change(card__limits=[], card__intended_use="x")
        document = branch.params()
        for number, each in enumerate(HOSTILE):
            document[f"{each} {number}"] = each
        branch.write(document)
        branch.commit()
        text, _ = reviewed(branch)
        page = Page(text)
        assert not {"a", "img", "script", "h1", "em"} & set(page.tags)
        assert page.tags.count("comment") == 1
        assert page.tags.count("details") == text.count("\n<details>")

    def test_where_it_is_uploaded(self, branch: Repository) -> None:
        address = "https://github.com/espalier-ml/espalier/actions/runs/1"
        assert f"[artifact of this run]({address})" in reviewed(branch, "--artifact-url", address)[0]
        for wrong in ("javascript:alert(1)", "https://a/) [x](http://b", "ftp://x", "https://a b"):
            with pytest.raises(ConfigError, match="not a web address"):
                reviewed(branch, "--artifact-url", wrong)

    def test_plots(self, branch: Repository) -> None:
        _, data = reviewed(branch)
        assert data["plots"] == ["confusion.png", "scores.png"]
        for name in data["plots"]:
            assert (Path("build/review") / name).read_bytes().startswith(b"\x89PNG")

    def test_the_chart_is_one_that_mermaid_reads(self, branch: Repository) -> None:
        branch.change(train__algorithms__decision_tree__max_depth=1)
        branch.retrain("decision_tree")
        branch.record()
        text, data = reviewed(branch)
        is_chart(text, len(data["algorithms"]), series=2)


def is_chart(text: str, bars: int, *, series: int) -> None:
    """Hold the chart against the grammar of mermaid's xychart."""
    (source,) = re.findall(r"```mermaid\n(.*?)\n```", text, re.S)
    kind, title, across, up, *drawn = (line.strip() for line in source.splitlines())
    number = r"-?\d+(?:\.\d+)?"
    assert kind == "xychart-beta"
    assert re.fullmatch(r'title "[^"\n]+"', title)
    assert re.fullmatch(r'x-axis \["\w+"(, "\w+")*\]', across)
    assert across.count('"') == 2 * bars
    found = re.fullmatch(rf'y-axis "\w+" ({number}) --> ({number})', up)
    assert found
    assert len(drawn) == series
    for line, name in zip(drawn, ("bar", "line"), strict=False):
        assert re.fullmatch(rf"{name} \[{number}(, {number})*\]", line)
        values = [float(each) for each in re.findall(number, line)]
        assert len(values) == bars
        assert float(found[1]) < min(values) <= max(values) <= float(found[2])


class TestCommand:
    def test_the_same_two_states_give_the_same_bytes(self, branch: Repository, tmp_path: Path) -> None:
        branch.change(train__algorithms__decision_tree__max_depth=1)
        branch.retrain("decision_tree")
        branch.record()
        branch.commit()
        reviewed(branch)
        first = {each.name: each.read_bytes() for each in Path("build/review").iterdir()}
        shutil.copytree(branch.root, tmp_path / "elsewhere", symlinks=True)
        again = Repository(tmp_path / "elsewhere", branch.monkeypatch)
        again.run("review", "--base", "main", "--output", "out")
        assert {each.name: each.read_bytes() for each in Path("out").iterdir()} == first

    def test_it_compares_with_where_the_branch_began(self, branch: Repository) -> None:
        branch.git("checkout", "-q", "main")
        branch.change(name="elsewhere")
        branch.commit()
        branch.git("checkout", "-q", "branch")
        _, data = reviewed(branch)
        assert data["parameters"] == []
        assert data["before"]["commit"] == data["after"]["commit"]

    def test_a_base_that_is_not_here(self, branch: Repository) -> None:
        with pytest.raises(UnreachableError, match="no revision 'nowhere'"):
            branch.run("review", "--base", "nowhere")
        branch.git("checkout", "-q", "--orphan", "stranger")
        branch.commit()
        with pytest.raises(UnreachableError, match="have no common commit"):
            branch.run("review", "--base", "main")

    def test_replaced_bytes_of_the_base_fail_it(self, branch: Repository) -> None:
        remote = branch.remote()
        branch.change(train__algorithms__decision_tree__max_depth=1)
        branch.retrain("decision_tree")
        branch.record()
        branch.commit()
        branch.forget()
        for each in remote.rglob("*"):
            if each.is_file():
                each.chmod(0o644)
                each.write_bytes(b"x")
        with pytest.raises(ReplacedError, match=r"for (candidates|data|reports)/"):
            branch.run("review", "--base", "main")
        assert not Path("build/review").exists()
        assert not Path(".dvc/cache/files").exists(), "nothing of it was kept"

    def test_the_verdict_is_no_exit_unless_asked(self, branch: Repository) -> None:
        arguments = ("--base", "main", "--failure", REFUSED)
        branch.run("review", *arguments)
        failed = branch.command(sys.executable, "-m", "training.review", *arguments, "--fail", check=False)
        assert failed.returncode == 1
        assert failed.stderr.strip().splitlines()[-1] == f"error: {REFUSED}"
        Path("dvc.lock").unlink()
        with pytest.raises(UnreachableError, match=r"^there is no dvc\.lock here"):
            branch.run("review", *arguments)


# ------------------------------------------------------------------------------- whatever a review holds

texts = (
    st.text(max_size=150)
    | st.sampled_from(HOSTILE)
    | st.sampled_from(["@" * 700, "\u202e" * 700, "漢" * 700])
)
values = st.floats(0, 1) | st.floats(-1e6, 1e6)
figures = st.builds(
    Algorithm,
    score=texts,
    cv=values,
    cv_std=values,
    test=values,
    test_low=values,
    test_high=values,
    second=st.just("log_loss"),
    second_test=values,
)
versions = st.text("0123456789abcdef", min_size=12, max_size=12)
champions = st.none() | st.builds(Champion, algorithm=texts, version=versions | texts, rule=texts)


@st.composite
def confusions(draw: st.DrawFn) -> Confusion | None:
    count = draw(st.integers(0, 12) | st.just(100))
    if not count:
        return None
    name = draw(texts)
    return Confusion(
        classes=tuple(f"{name}{each}" for each in range(count)),
        counts=tuple(tuple((row * 7 + column) % 5 for column in range(count)) for row in range(count)),
    )


@st.composite
def many(draw: st.DrawFn, one: st.SearchStrategy[Any]) -> tuple[Any, ...]:
    """None, a few, or far more than anybody reads."""
    few = tuple(draw(st.lists(one, max_size=4)))
    return few * draw(st.sampled_from([1, 1, 1, 200]))


states = st.builds(State, commit=st.just("0" * 40), champion=champions, confusion=confusions())
changes = st.builds(Change, name=texts, before=st.none() | texts, after=st.none() | texts)
ranks = st.none() | st.integers(1, 9)
contestants = st.builds(
    Contestant,
    name=texts | st.sampled_from(["svm", "xgboost"]),
    before=st.none() | figures,
    after=st.none() | figures,
    rank_before=ranks,
    rank_after=ranks,
)
scores = st.fixed_dictionaries({"value": values, "low": values, "high": values})
sides = st.builds(Side, name=texts, algorithm=texts, version=texts, commit=st.just("0" * 40))
comparisons = st.none() | st.builds(
    Comparison,
    passed=st.booleans(),
    outcome=st.sampled_from(["nothing_released", "same", "compared", "incomparable"]),
    verdict=texts,
    environment=texts,
    candidate=sides,
    production=st.none() | sides,
    rows=st.integers(1, 10**6),
    confidence=st.just(0.95),
    figures=many(
        st.builds(
            lambda **keys: Figure.model_validate(keys),
            metric=texts,
            production=scores,
            candidate=scores,
            difference=scores,
            allowed=st.none() | values,
            passes=st.booleans(),
        )
    ),
    answered=st.none()
    | st.builds(
        Answered,
        alike=st.just(1),
        only_candidate_right=st.integers(0, 3),
        only_production_right=st.integers(0, 3),
        chance=st.floats(0, 1),
    ),
    missed=many(texts),
    reasons=many(texts),
    warnings=many(texts),
)
reviews = st.builds(
    Review,
    passed=st.booleans(),
    outcome=st.sampled_from(["passes", "worse", "undecided", "refused", "broken"]),
    reason=texts | texts.map(lambda text: text * 1000),
    before=states,
    after=states,
    parameters=many(changes),
    data=many(changes),
    test_split_changed=st.booleans(),
    score_changed=st.booleans(),
    algorithms=many(contestants),
    production=comparisons,
    notes=many(texts),
    artifact_url=st.none() | st.just("https://example.com/1"),
    plots=st.just(("scores.png",)),
)


@pytest.mark.long("common", "training/review", "tests/training/review")
@given(reviews)
@settings(max_examples=examples(20))
def test_whatever_a_review_holds_the_comment_is_short_and_harmless(review: Review) -> None:
    text = comment.render(review)
    assert text.startswith("<!-- espalier-review -->\n\n### ")
    assert markdown.size(text) <= comment.LIMIT < GITHUB_TAKES
    page = Page(text)
    assert page.tags.count("comment") == 1
    assert page.tags.count("h3") == 1
    assert page.tags.count("details") == page.ended.count("details") == text.count("\n<summary>")
    assert page.tags.count("a") == (review.artifact_url is not None)
    assert not {"img", "script", "h1", "h2", "em"} & set(page.tags)
    assert Review.model_validate_json(review.model_dump_json()) == review


def test_many_algorithms_and_classes_are_shown_as_far_as_they_fit() -> None:
    one = Algorithm(
        score="f1_macro",
        cv=0.9,
        cv_std=0.1,
        test=0.9,
        test_low=0.8,
        test_high=1,
        second="log_loss",
        second_test=0.3,
    )
    side = State(
        commit="0" * 40,
        champion=Champion(algorithm="a0", version="0" * 12, rule="highest"),
        confusion=Confusion(
            classes=tuple(f"class {each}" for each in range(300)),
            counts=tuple(
                tuple(int(row == column) + (row == 7) for column in range(300)) for row in range(300)
            ),
        ),
    )
    review = Review(
        passed=True,
        outcome="passes",
        reason="",
        before=side,
        after=side,
        parameters=tuple(Change(name=f"key{each}", before="1", after="2") for each in range(5000)),
        data=(),
        test_split_changed=False,
        score_changed=False,
        algorithms=tuple(
            Contestant(name=f"a{each}", before=one, after=one, rank_before=each + 1, rank_after=each + 1)
            for each in range(1000)
        ),
        production=None,
        notes=(),
        artifact_url=None,
        plots=(),
    )
    text = comment.render(review)
    assert markdown.size(text) < comment.LIMIT
    assert "5000 parameters changed" in text
    assert len(re.findall(r"… and [\d,]+ more", text)) >= 2
    assert "| `class 7` | `class 0` | 1 |" in text
    is_chart(text, 12, series=1)


def test_values_made_to_be_long_do_not_add_up_to_more_than_github_takes() -> None:
    long = "@|`" * 300
    one = Algorithm(
        score=long,
        cv=0.9,
        cv_std=0.1,
        test=0.9,
        test_low=0.8,
        test_high=1,
        second="log_loss",
        second_test=0.3,
    )
    side = State(
        commit="0" * 40,
        champion=Champion(algorithm=long, version=long, rule=long),
        confusion=Confusion(classes=tuple(f"{each}{long}" for each in range(40)), counts=((1,) * 40,) * 40),
    )
    other = State(commit="1" * 40, champion=Champion(algorithm=long, version="x", rule=""), confusion=None)
    who = Side(name=long, algorithm=long, version=long, commit=long)
    nothing = Score(value=0.0, low=0.0, high=0.0)
    figure = Figure(
        metric=long, production=nothing, candidate=nothing, difference=nothing, allowed=0.1, passes=False
    )
    review = Review(
        passed=False,
        outcome="worse",
        reason=long,
        before=other,
        after=side,
        parameters=(Change(name=long, before=long, after=long),) * 99,
        data=(Change(name=long, before=long, after=long),) * 99,
        test_split_changed=True,
        score_changed=False,
        algorithms=(Contestant(name=long, before=one, after=one, rank_before=1, rank_after=2),) * 99,
        production=Comparison(
            passed=False,
            outcome="compared",
            verdict=long,
            environment=long,
            candidate=who,
            production=who,
            rows=7,
            figures=(figure,) * 99,
            missed=(long,) * 99,
            warnings=(long,) * 99,
        ),
        notes=(long,) * 99,
        artifact_url="https://example.com/1",
        plots=(),
    )
    text = comment.render(review)
    assert markdown.size(text) <= comment.LIMIT
    assert text.count(" more, in `review.json`.") >= 5
    assert "99 parameters changed" in text
    page = Page(text)
    assert page.tags.count("details") == page.ended.count("details") >= 2
    assert text.endswith("[artifact of this run](https://example.com/1).</sub>\n")

"""The champion against the model in production: what passes, what is stopped, and what is said of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.contract import BundleError, Score
from common import overlays
from common.overlays import OverlayError
from tests.training.project import ROOT
from tests.training.repository import ENVIRONMENT, OVERLAY, Repository
from training.base.config import load
from training.base.errors import ConfigError, DataError, GateError
from training.production.command import ProductionSettings
from training.production.comparison import exceeded_limits
from training.production.revisions import UnreachableError
from training.remote.objects import ReplacedError
from training.sections.select import ProductionGateSettings

pytestmark = pytest.mark.slow


def judged(repository: Repository, *arguments: str) -> dict[str, Any]:
    """What `--json` holds; the exit may be that of the gate."""
    error = None
    try:
        repository.run("production", "--json", "out.json", *arguments)
    except GateError as caught:
        error = str(caught)
    result: dict[str, Any] = json.loads(Path("out.json").read_text())
    assert error == (None if result["passed"] else result["verdict"])
    return result


def change_bundle(repository: Repository) -> None:
    """Another bundle of the very same model."""
    repository.change(schema__out_of_range="accept")
    repository.run("prepare")
    repository.run("select")


def worse(repository: Repository) -> None:
    repository.only("logistic_regression", C=0.01)
    repository.retrain()


class TestVerdict:
    def test_before_the_first_release_everything_passes(self, committed: Repository) -> None:
        committed.forget()
        result = judged(committed)
        assert result["outcome"] == "nothing_released"
        assert "nothing was released to production yet" in result["verdict"]

    def test_the_model_that_runs_passes_without_being_fetched(self, released: Repository) -> None:
        released.forget()
        assert judged(released)["outcome"] == "same"

    def test_an_equal_model_passes(self, released: Repository, capsys: pytest.CaptureFixture[str]) -> None:
        change_bundle(released)
        result = judged(released)
        assert result["outcome"] == "compared"
        assert {each["difference"]["value"] for each in result["figures"]} == {0.0}
        assert result["answered"]["alike"] == result["rows"] == 37
        shown = capsys.readouterr().out
        assert "f1_macro" in shown
        assert "Both are right on the same rows" in shown

    def test_a_worse_model_is_stopped_with_figure_and_rule(self, released: Repository) -> None:
        before = released.version()
        worse(released)
        result = judged(released)
        assert result["production"]["version"] == before
        assert "test accuracy is 0." in result["verdict"]
        assert "select.gate.production.maximum_drop.accuracy allows 0.03" in result["verdict"]
        assert "select.gate.production.maximum_rise.log_loss allows 0.1" in result["verdict"]
        assert f"worse than logistic_regression {before}, which production runs" in result["verdict"]
        stopped = {each["metric"] for each in result["figures"] if not each["passes"]}
        assert stopped == {"accuracy", "f1_macro", "log_loss"}

    def test_the_figures_are_those_of_the_bundles(self, released: Repository) -> None:
        ran = released.manifest().metrics["test"]
        worse(released)
        ours = released.manifest().metrics["test"]
        for each in judged(released)["figures"]:
            assert each["production"] == ran[each["metric"]].model_dump()
            assert each["candidate"] == ours[each["metric"]].model_dump()
            low, high = each["difference"]["low"], each["difference"]["high"]
            assert low <= each["difference"]["value"] <= high

    def test_no_rules_no_demands(self, released: Repository) -> None:
        worse(released)
        released.change(select__gate__production={})
        assert judged(released)["missed"] == []

    def test_exit_and_one_line(self, released: Repository) -> None:
        worse(released)
        done = released.command(sys.executable, "-m", "training.production", check=False)
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error: logistic_regression ")
        change_bundle(released)
        released.change(select__gate__production={})
        released.run("production")


@given(
    drop=st.integers(0, 1000),
    allowed=st.integers(0, 1000),
    metric=st.sampled_from(["accuracy", "f1_macro", "log_loss"]),
)
def test_what_is_allowed_is_allowed_and_no_more(drop: int, allowed: int, metric: str) -> None:
    loss = drop / 1000
    differences = {name: Score(value=0.0, low=0.0, high=0.0) for name in ("accuracy", "f1_macro", "log_loss")}
    differences[metric] = Score(value=loss if metric == "log_loss" else -loss, low=-1.0, high=1.0)
    rules = (
        ProductionGateSettings(maximum_rise={"log_loss": allowed / 1000})
        if metric == "log_loss"
        else ProductionGateSettings.model_validate({"maximum_drop": {metric: allowed / 1000}})
    )
    assert bool(exceeded_limits(differences, rules)) == (drop > allowed)


def test_a_difference_that_is_no_number_is_no_pass() -> None:
    nothing = Score(value=float("nan"))
    rules = ProductionGateSettings(maximum_drop={"accuracy": 1.0}, maximum_rise={"log_loss": 9.0})
    assert len(exceeded_limits({"accuracy": nothing, "log_loss": nothing}, rules)) == 2


class TestRules:
    @pytest.mark.parametrize(
        ("rules", "said"),
        [
            (
                {"maximum_drop": {"log_loss": 0.1}},
                "log_loss is better when lower: write it under maximum or maximum_rise",
            ),
            ({"maximum_drop": {"accuracy": -0.1}}, "maximum_drop.accuracy"),
            ({"maximum_drop": {"beauty": 0.1}}, "maximum_drop.beauty"),
            ({"maximum_rise": {"log_loss": -1}}, "maximum_rise.log_loss"),
            ({"maximum_rise": {"accuracy": 1}}, "accuracy is better when higher: write it under"),
            (
                {"maximum_log_loss_rise": 0.2},
                "maximum_log_loss_rise is written as `maximum_rise: {log_loss: 0.2}`",
            ),
            ({"accept_incomparable": 123456789012}, "in quotes"),
            ({"accept_incomparable": "latest"}, "twelve hexadecimal digits"),
            ({"minimum_drop": {}}, "unknown key"),
        ],
    )
    def test_what_makes_no_sense_is_named(
        self, trained: Repository, rules: dict[str, Any], said: str
    ) -> None:
        trained.change(select__gate__production=rules)
        with pytest.raises(ConfigError, match=r"select\.gate\.production") as caught:
            load(ProductionSettings)
        assert said in str(caught.value)

    def test_the_project_has_some(self) -> None:
        rules = load(ProductionSettings, ROOT / "params.yaml").select.gate.production
        assert rules.maximum_drop
        assert rules.accept_incomparable is None


class TestOverlay:
    def test_it_is_read_where_it_is_told(self, released: Repository) -> None:
        worse(released)
        staging = Path(overlays.path("staging", "iris"))
        environment = Path("deploy/overlays/staging/kustomization.yaml")
        environment.parent.mkdir()
        environment.touch()
        result = judged(released, "--environment", "staging")
        assert result["outcome"] == "nothing_released"
        assert result["environment"] == "staging"
        assert judged(released, "--overlay", str(staging))["outcome"] == "nothing_released"

    def test_a_branch_cannot_choose_what_it_is_compared_with(self, released: Repository) -> None:
        worse(released)
        released.git("checkout", "-q", "-b", "branch")
        released.release()
        assert judged(released)["passed"]
        assert not judged(released, "--at", "main")["passed"]

    def test_the_environment_must_exist(self, released: Repository) -> None:
        with pytest.raises(ConfigError, match=r"there is no deploy/overlays/prod/kustomization\.yaml here"):
            released.run("production", "--environment", "prod")
        OVERLAY.unlink()
        ENVIRONMENT.unlink()
        released.commit()
        with pytest.raises(ConfigError, match=f"there is no {ENVIRONMENT} at "):
            released.run("production", "--at", "HEAD")

    @pytest.mark.parametrize("text", ["", "[]", "{", "<<<<<<< HEAD\n", "commonAnnotations: {}"])
    def test_it_must_say_what_runs(self, released: Repository, text: str) -> None:
        OVERLAY.write_text(text)
        with pytest.raises(OverlayError, match=r"is not as `python -m deploy\.release` writes it"):
            released.run("production")

    def test_a_version_of_digits_is_no_number(self, released: Repository) -> None:
        released.release(released.git("rev-parse", "HEAD~1"), "012345678901")
        with pytest.raises(DataError, match="says that version 012345678901 runs, but its revision"):
            released.run("production")


class TestWhereTheBundleIsFound:
    def test_in_the_remote_when_the_cache_is_empty(self, released: Repository) -> None:
        released.remote()
        change_bundle(released)
        released.forget()
        before = released.git("status", "--porcelain")
        assert judged(released)["outcome"] == "compared"
        Path("out.json").unlink()
        assert released.git("status", "--porcelain") == before
        assert not Path(".dvc/cache/files").exists()

    def test_while_dvc_is_at_work(self, released: Repository) -> None:
        from zc.lockfile import LockFile  # type: ignore[import-untyped]

        change_bundle(released)
        lock = LockFile(".dvc/tmp/lock")
        try:
            busy = released.command("dvc", "status", check=False)
            done = released.command(sys.executable, "-m", "training.production")
        finally:
            lock.close()
        assert "Unable to acquire lock" in busy.stderr
        assert "passes:" in done.stdout

    def test_in_the_remote_when_the_cache_is_damaged(self, released: Repository) -> None:
        released.remote()
        change_bundle(released)
        for each in Path(".dvc/cache/files").rglob("*"):
            if each.is_file():
                each.chmod(0o644)
                each.write_bytes(b"x")
        assert judged(released)["outcome"] == "compared"

    def test_nowhere(self, released: Repository) -> None:
        change_bundle(released)
        released.forget()
        with pytest.raises(UnreachableError, match=r"model \(.*not in DVC's cache and there is no remote"):
            released.run("production")

    def test_not_in_the_remote_either(self, released: Repository) -> None:
        remote = released.remote()
        change_bundle(released)
        released.forget()
        shutil.rmtree(remote)
        with pytest.raises(
            UnreachableError, match="neither in DVC's cache nor in the remote: run `make push`"
        ):
            released.run("production")

    def test_in_a_remote_that_lies(self, released: Repository) -> None:
        remote = released.remote()
        change_bundle(released)
        released.forget()
        for each in remote.rglob("*"):
            if each.is_file():
                each.chmod(0o644)
                each.write_bytes(b"x")
        with pytest.raises(
            ReplacedError, match=r"other content than the name says for model \(.*\.dir\): nothing"
        ):
            released.run("production")
        assert not Path(".dvc/cache/files").exists(), "nothing of it was kept"

    def test_in_a_remote_that_cannot_be_reached(
        self, released: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        change_bundle(released)
        released.forget()
        released.dvc("remote", "add", "--local", "--default", "s3", "s3://bucket/dvc")
        released.dvc("remote", "modify", "--local", "s3", "endpointurl", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(
            UnreachableError, match=r"the remote s3://.* does not give model \(.*check its address and your"
        ):
            released.run("production")

    def test_a_revision_that_is_not_here(self, released: Repository) -> None:
        released.release("1234567890" * 4)
        with pytest.raises(UnreachableError, match=r"no revision '1234567890.*run `git fetch origin`"):
            released.run("production")

    def test_a_shallow_clone(self, released: Repository, tmp_path: Path) -> None:
        clone = tmp_path / "clone"
        released.git("clone", "-q", "--depth", "1", f"file://{released.root}", str(clone))
        shutil.copytree(released.root / "model", clone / "model")
        here = Repository(clone, released.monkeypatch)
        with pytest.raises(UnreachableError, match="the clone is shallow, run `git fetch --unshallow`"):
            here.run("production")

    def test_a_bundle_that_was_tampered_with(self, released: Repository) -> None:
        manifest = Path("model/model.json")
        manifest.write_text(manifest.read_text().replace('"name": "iris"', '"name": "rose"'))
        released.record()
        commit = released.commit()
        released.release(commit)
        released.run("select")
        change_bundle(released)
        with pytest.raises(DataError, match=r"is not sound: model\.json does not match its own digest"):
            released.run("production")

    def test_a_bundle_that_explains_its_predictions(self, released: Repository) -> None:
        released.change(explain="shap")
        released.run("train", "logistic_regression")
        block = released.params()["train"]["algorithms"]["logistic_regression"]
        released.change(train__algorithms={"logistic_regression": block})
        released.run("select")
        assert Path("model/explain.onnx").stat().st_size > 0
        released.record()
        released.release(released.commit())
        released.run("production")

    def test_the_candidate_must_be_sound_too(self, released: Repository) -> None:
        Path("model/model.onnx").write_bytes(b"x")
        with pytest.raises(BundleError):
            released.run("production")

    def test_a_tree_that_was_not_reproduced(self, released: Repository) -> None:
        released.change(schema__features__sepal_length__range=[2, 9])
        released.run("prepare")
        rename_only = released.manifest().model_copy(update={"name": "other"})
        released.replace_manifest(rename_only)
        with pytest.raises(DataError, match=r"not made from what data/ holds: run `dvc repro`"):
            released.run("production")


class TestIncomparable:
    def rename_class(self, repository: Repository) -> None:
        repository.change(
            data__replace={"species": {"setosa": "iris setosa"}},
            schema__classes=["iris setosa", "versicolor", "virginica"],
        )
        for stage in ("fetch", "prepare"):
            repository.run(stage)
        repository.only("logistic_regression", C=1.0)
        repository.retrain()

    def test_other_classes(self, released: Repository) -> None:
        runs = released.version()
        self.rename_class(released)
        result = judged(released)
        assert result["outcome"] == "incomparable"
        assert "only production's knows 'setosa', only this one knows 'iris setosa'" in result["verdict"]
        assert f'select.gate.production.accept_incomparable: "{runs}"' in result["verdict"]

    def test_accepted_for_the_one_version_that_is_named(self, released: Repository) -> None:
        runs = released.version()
        self.rename_class(released)
        released.change(select__gate__production__accept_incomparable="0123456789ab")
        assert not judged(released)["passed"]
        released.change(select__gate__production__accept_incomparable=runs)
        result = judged(released)
        assert result["passed"]
        assert "accepts it for this version" in result["verdict"]

    def test_a_feature_that_is_gone(self, released: Repository) -> None:
        features = released.params()["schema"]["features"]
        features["petal_span"] = features.pop("petal_width")
        released.change(schema__features=features, data__rename={"petal width (cm)": "petal_span"})
        document = released.params()
        document["data"]["rename"] = {"petal_width": "petal_span"}
        released.write(document)
        for stage in ("fetch", "prepare"):
            released.run(stage)
        released.only("logistic_regression", C=1.0)
        released.retrain()
        result = judged(released)
        assert result["outcome"] == "incomparable"
        assert (
            "production's model needs 'petal_width', which the data does not have any more"
            in result["verdict"]
        )

    def test_a_bundle_of_another_schema_version(self, released: Repository) -> None:
        manifest = Path("model/model.json")
        manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 7'))
        version = json.loads(manifest.read_text())["version"]
        released.record()
        released.release(released.commit(), version)
        released.run("select")
        change_bundle(released)
        result = judged(released)
        assert "its bundle has schema version 7 and this code reads 1" in result["verdict"]
        released.change(select__gate__production__accept_incomparable=version)
        assert judged(released)["passed"]

    def test_a_bundle_that_is_lost_can_be_replaced(self, released: Repository) -> None:
        version = released.version()
        change_bundle(released)
        released.forget()
        released.change(select__gate__production__accept_incomparable=version)
        result = judged(released)
        assert result["outcome"] == "incomparable"
        assert "not in DVC's cache" in result["verdict"]


class TestRows:
    def test_classes_in_another_order_compare(self, released: Repository) -> None:
        ran = released.manifest().metrics["test"]
        released.change(schema__classes=["virginica", "setosa", "versicolor"])
        released.run("prepare")
        released.only("logistic_regression", C=1.0)
        released.retrain()
        result = judged(released)
        assert result["outcome"] == "compared"
        assert (result["rows"], result["warnings"]) == (37, [])
        for each in result["figures"]:
            assert each["production"]["value"] == pytest.approx(ran[each["metric"]].value, abs=1e-6)
            assert abs(each["difference"]["value"]) < 0.001

    def test_another_split_counts_only_rows_that_production_has_not_seen(self, released: Repository) -> None:
        released.change(split__seed=8, split__test_share=0.4)
        released.run("prepare")
        released.only("logistic_regression", C=1.0)
        released.retrain()
        (warning,) = (result := judged(released))["warnings"]
        assert "the test split changed since production's model was measured (md5 " in warning
        assert "… then, " in warning
        # 60 rows; about a quarter of all rows were held back before: too few of them are among these.
        assert "it was trained on " in warning
        assert result["rows"] == 60
        assert "the others are too few" in warning

    def test_enough_unseen_rows(self, released: Repository) -> None:
        released.change(split__test_share=0.6)
        released.run("prepare")
        released.only("logistic_regression", C=1.0)
        released.retrain()
        released.record()
        released.release_now()
        released.change(split__test_share=0.4, split__seed=9)
        released.run("prepare")
        released.retrain()
        result = judged(released)
        (warning,) = result["warnings"]
        seen = 60 - result["rows"]
        assert seen > 0
        assert f"it was trained on {seen} of these rows, so only the other {result['rows']} count" in warning

    def test_training_rows_that_cannot_be_had(self, released: Repository) -> None:
        released.change(split__seed=8)
        released.run("prepare")
        released.only("logistic_regression", C=1.0)
        released.retrain()
        (lost,) = [
            each["md5"]
            for each in yaml.safe_load(released.git("show", "HEAD:dvc.lock"))["stages"]["prepare"]["outs"]
            if each["path"] == "data/train.parquet"
        ]
        cached = Path(".dvc/cache/files/md5") / lost[:2] / lost[2:]
        cached.unlink()
        (warning,) = judged(released)["warnings"]
        assert "whether that model was trained on some of these rows cannot be seen" in warning

    def test_rows_that_productions_service_refuses_are_left_out(self, released: Repository) -> None:
        manifest = released.manifest()
        first = manifest.features[0].model_copy(update={"maximum": 7.0})
        narrow = manifest.model_copy(update={"features": (first, *manifest.features[1:])})
        released.replace_manifest(narrow)
        released.record()
        released.release_now()
        released.run("select")
        change_bundle(released)
        result = judged(released)
        (warning,) = result["warnings"]
        count = 37 - result["rows"]
        assert count > 0
        assert f"{count} of 37 rows are left out: production's service refuses them" in warning

    def test_a_class_of_which_no_row_is_left(self, released: Repository) -> None:
        manifest = released.manifest()
        narrow = tuple(
            each.model_copy(update={"maximum": 2.0}) if each.name == "petal_length" else each
            for each in manifest.features
        )
        released.replace_manifest(manifest.model_copy(update={"features": narrow}))
        released.record()
        released.release_now()
        released.run("select")
        change_bundle(released)
        result = judged(released)
        assert result["outcome"] == "incomparable"
        assert "no row of class 'versicolor' and 'virginica' is left" in result["verdict"]


def test_help_explains_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training.production", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage: python -m training.production" in done.stdout
    assert "--at REV" in done.stdout

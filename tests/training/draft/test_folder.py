"""A folder for a further model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common import models, pipelines
from common.errors import EspalierError
from tests.training.project import ROOT
from training.base import config
from training.base.errors import ConfigError
from training.draft import command
from training.draft.document import DRAFTED

ROWS = "".join(
    f"{number / 7:.3f},{number % 5},{'left' if number % 3 else 'stayed'}\n" for number in range(90)
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "größe & co.csv"
    file.write_text("höhe,kids,result\n" + ROWS, encoding="utf-8")
    return file


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the first model and nothing else."""
    root = tmp_path / "repository"
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def create(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def run(name: str, source: object, target: str = "result") -> Path:
        monkeypatch.setattr(models, "ROOT", root)
        monkeypatch.setattr(sys, "argv", ["draft", str(source), "--target", target, "--model", name])
        command.main()
        return root / "models" / name

    return run


def test_it_has_the_source_the_pipeline_and_parameters_that_stages_take(
    create: Callable[..., Path], source: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = create("churn", source)
    assert (made / "data/source" / source.name).read_bytes() == source.read_bytes()
    assert (made / "dvc.yaml").read_text() == pipelines.render(
        (root / "dvc.yaml").read_text(), "classification", further=True
    )
    from training.settings.stage import Params

    params = config.load(Params, made / "params.yaml")
    assert params.name == "churn"
    assert params.data.source == f"data/source/{source.name}"
    assert list(params.data_schema.features) == ["höhe", "kids"]
    assert set(params.train.algorithms) == set(DRAFTED["classification"])
    assert capsys.readouterr().out.startswith("models/churn/params.yaml is drafted from ")
    assert Path.cwd() == root


def test_a_regression_has_its_own_plots_and_algorithms(
    create: Callable[..., Path], source: Path, root: Path
) -> None:
    made = create("height", source, "höhe")
    assert pipelines.task_of((made / "dvc.yaml").read_text()) == "regression"
    assert pipelines.task_of((root / "dvc.yaml").read_text()) == "classification"
    from training.settings.stage import Params

    params = config.load(Params, made / "params.yaml")
    assert params.data_schema.task == "regression"
    assert set(params.train.algorithms) == set(DRAFTED["regression"])


def test_what_is_no_file_stays_where_it_is(create: Callable[..., Path]) -> None:
    made = create("wine-2", "sklearn:wine", "target")
    assert [each.name for each in (made / "data/source").iterdir()] == [".gitkeep"]
    assert config.read(made / "params.yaml")["data"]["source"] == "sklearn:wine"


@pytest.mark.parametrize(
    ("name", "source", "target", "message"),
    [
        ("Churn", "sklearn:wine", "target", "a model cannot be called 'Churn'"),
        ("all", "sklearn:wine", "target", "a model cannot be called 'all'"),
        ("../up", "sklearn:wine", "target", "a model cannot be called"),
        ("", "sklearn:wine", "target", "a model cannot be called ''"),
        ("iris", "sklearn:wine", "target", "there is a model iris in "),
        ("churn", "sklearn:wine", "taget", "--target: there is no column 'taget'"),
        ("churn", "nowhere.csv", "x", "nowhere.csv"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    create: Callable[..., Path], root: Path, name: str, source: str, target: str, message: str
) -> None:
    with pytest.raises(EspalierError, match=message):
        create(name, source, target)
    assert Path.cwd() == root
    assert not [
        each for each in root.rglob("*") if each.is_file() and each.name not in ("params.yaml", "dvc.yaml")
    ]


def test_a_model_is_not_replaced(create: Callable[..., Path], source: Path) -> None:
    made = create("churn", source)
    before = (made / "params.yaml").read_bytes()
    with pytest.raises(ConfigError, match=r"there is a model churn in .*models/churn: choose another NAME"):
        create("churn", "sklearn:wine", "target")
    assert (made / "params.yaml").read_bytes() == before


def test_it_holds_what_git_keeps(create: Callable[..., Path], source: Path) -> None:
    """The folder holds what git keeps and nothing that a pipeline makes."""
    made = create("churn", source)
    names = sorted(str(each.relative_to(made)) for each in made.rglob("*") if each.is_file())
    assert names == ["data/source/.gitkeep", f"data/source/{source.name}", "dvc.yaml", "params.yaml"]

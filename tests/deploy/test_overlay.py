"""The overlays of a new model: written beside the first one's, for a name of its own, and nothing else is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from common import models, overlays
from deploy import overlay
from deploy.errors import DeployError
from deploy.manifests import model as checks
from deploy.manifests import render
from tests.deploy.conftest import Call
from tests.deploy.project import ENVIRONMENTS, MODEL, ROOT


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    shutil.copytree(
        ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("__pycache__", "*.py")
    )
    (tmp_path / ".github").mkdir()
    shutil.copy(ROOT / overlay.OWNERS, tmp_path / overlay.OWNERS)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def _files(folder: Path) -> dict[str, str]:
    return {str(each.relative_to(folder)): each.read_text() for each in folder.rglob("*") if each.is_file()}


def test_a_model_gets_what_the_first_one_has(repository: Path) -> None:
    before = _files(repository)
    written = overlay.write(repository, "churn")
    expected = [f"{overlays.folder(each, 'churn')}/kustomization.yaml" for each in sorted(ENVIRONMENTS)]
    assert written == [*expected, ".github/CODEOWNERS"]
    after = _files(repository)
    assert after.keys() - before.keys() == set(expected)
    owners = after.pop(".github/CODEOWNERS").removeprefix(before.pop(".github/CODEOWNERS"))
    assert owners.split() == ["/models/churn/", "@espalier-ml/maintainers"]
    assert before.items() <= after.items(), "no existing line changes"
    with render.copied(repository / "deploy") as copy:
        for environment in ENVIRONMENTS:
            shared = render.parse(render.render(copy / "overlays" / environment))
            documents = render.parse(render.render(copy / "overlays" / environment / "churn"))
            assert checks.problems(documents, shared, "churn") == []
            (host,) = checks.hosts(documents)
            assert host.startswith("churn.espalier.")
            assert MODEL not in yaml.safe_dump_all(documents)


def test_what_is_there_stays(repository: Path) -> None:
    overlay.write(repository, "churn", "@espalier-ml/churn @ada")
    assert (
        "/models/churn/               @espalier-ml/churn @ada\n" in (repository / overlay.OWNERS).read_text()
    )
    mine = repository / overlays.folder("staging", "churn") / "kustomization.yaml"
    mine.write_text("mine")
    before = _files(repository)
    assert overlay.write(repository, "churn") == []
    assert _files(repository) == before


@pytest.mark.parametrize(
    "name", ["staging", "base", "espalier", "release", "components", "true", "on", "null", "y"]
)
def test_a_name_that_is_also_something_else_changes_the_name_alone(repository: Path, name: str) -> None:
    """From one model to another: words that are no name of a model stay."""
    text = (repository / overlays.folder("staging", MODEL) / "kustomization.yaml").read_text()
    there = overlay.renamed(text, MODEL, name)
    assert overlay.renamed(there, name, MODEL) == text
    assert yaml.safe_load(there)["components"] == yaml.safe_load(text)["components"]
    assert yaml.safe_load(there)["namePrefix"] == f"{name}-"
    assert yaml.safe_load(there)["labels"][0]["pairs"] == {"app.kubernetes.io/instance": name}


def test_after_the_first_model_was_renamed_another_is_copied(repository: Path) -> None:
    params = repository / "params.yaml"
    params.write_text(params.read_text().replace(f"name: {MODEL}", "name: churn"))
    written = overlay.write(repository, "churn")
    assert written == [
        f"{overlays.folder(each, 'churn')}/kustomization.yaml" for each in sorted(ENVIRONMENTS)
    ]


@pytest.mark.parametrize("name", ["credit_default", "Iris", "my table", "x" * 32, "../x", ""])
def test_a_name_that_kubernetes_would_refuse_is_refused(repository: Path, name: str) -> None:
    before = _files(repository)
    with pytest.raises(
        models.ModelNameError, match="at most 31 lower-case letters, digits and single hyphens"
    ):
        overlay.write(repository, name)
    assert _files(repository) == before


def test_without_any_there_is_nothing_to_copy(repository: Path) -> None:
    for each in render.deployed("staging", repository / "deploy"):
        shutil.rmtree(repository / overlays.folder("staging", each))
    before = _files(repository)
    with pytest.raises(DeployError, match="staging has no overlay of a model to copy"):
        overlay.write(repository, "churn")
    assert _files(repository) == before


def test_only_a_model_gets_one(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "ROOT", ROOT)
    done = call(overlay.main, ROOT, "pengiuns")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no model 'pengiuns': did you mean penguins" in done.stderr

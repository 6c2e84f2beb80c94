from __future__ import annotations

from pathlib import Path

import pytest

from deploy.ci import steps
from deploy.errors import DeployError


def test_outputs_and_summary_are_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    steps.output(changed=True, image="a@b")
    steps.output(changed=False)
    steps.summary("# One\n")
    steps.summary("two")
    assert (tmp_path / "output").read_text() == "changed=true\nimage=a@b\nchanged=false\n"
    assert (tmp_path / "summary").read_text() == "# One\ntwo\n"


def test_other_ci_systems_name_the_file_of_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("STEP_OUTPUT", str(tmp_path / "build/outputs.env"))
    steps.output(changed=True)
    assert (tmp_path / "build/outputs.env").read_text() == "changed=true\n"
    assert not (tmp_path / "output").exists()


def test_no_value_sets_a_second_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    with pytest.raises(DeployError, match="more than one line"):
        steps.output(image="a\nrelease=true")
    assert not (tmp_path / "output").exists()


def test_a_variable_that_is_missing_or_empty_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEEDS", "")
    with pytest.raises(DeployError, match="NEEDS is not set"):
        steps.environment("NEEDS")


def test_outputs_are_set_without_printing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    steps.set_output(image="host/name@sha256:1", digest="sha256:1")
    assert (tmp_path / "output").read_text() == "image=host/name@sha256:1\ndigest=sha256:1\n"
    assert capsys.readouterr().out == ""

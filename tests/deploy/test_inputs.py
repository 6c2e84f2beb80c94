from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from common.git import GitError
from deploy.inputs import INPUTS, MODEL, bundle_hash, changed

ROOT = Path(__file__).parents[2]
DOCKERFILE = "app/Dockerfile"
LOCK = """\
schema: '2.0'
stages:
  select:
    cmd: python -m training.select
    outs:
    - path: MODEL_CARD.md
      md5: {card}
    - path: model
      md5: {model}.dir
"""


class Repository:
    """A clone with what counts, to change and commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "-q", "-b", "main")
        self.write("app/main.py", "1")
        self.write("app/Dockerfile", "FROM x")
        self.write("training/train.py", "1")
        self.write("uv.lock", "1")
        self.write("dvc.lock", LOCK.format(card="c", model="m"))
        self.write("models/churn/dvc.lock", LOCK.format(card="c", model="m"))
        self.first = self.commit()

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=self.root, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-qm", "change", "--allow-empty")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_are_what_dockerignore_admits_and_the_dockerfile_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*", "everything stays out that is not named"
    admitted = {line[1:] for line in patterns if line.startswith("!")}
    # Byte code and half-written files are under no version control; the Dockerfile decides without being copied.
    assert {line for line in patterns[1:] if not line.startswith("!")} == {
        DOCKERFILE,
        "**/__pycache__",
        "**/*.py[co]",
        "**/*.tmp",
    }

    dockerfile = (ROOT / DOCKERFILE).read_text()
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert not re.findall(r"^ADD|type=bind", dockerfile, re.MULTILINE), "nothing comes in another way"
    # The bundle of one model, which a build argument names.
    assert {path for path in copied if "$" in path} == {"${MODEL}"}
    assert f"ARG MODEL={MODEL}\n" in dockerfile
    admitted.remove(f"models/*/{MODEL}")
    copied = copied - {"${MODEL}"} | {MODEL}
    assert {path.split("/")[0] for path in copied} <= admitted | {"app"}
    assert admitted == {path for path in copied if "/" not in path}
    assert {*admitted, ".dockerignore"} == {*INPUTS, MODEL}
    assert (ROOT / DOCKERFILE).is_file()
    assert "app" in INPUTS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app/main.py", ["app/main.py"]),
        ("app/new/deep.html", ["app/new/deep.html"]),
        ("app/Dockerfile", ["app/Dockerfile"]),
        (".dockerignore", [".dockerignore"]),
        ("uv.lock", ["uv.lock"]),
        ("pyproject.toml", ["pyproject.toml"]),
        ("training/train.py", []),
        ("deploy/overlays/staging/kustomization.yaml", []),
        ("params.yaml", []),
        ("application.py", []),
    ],
)
def test_a_file_counts_if_it_goes_into_the_image(
    repository: Repository, name: str, expected: list[str]
) -> None:
    repository.write(name, "2")
    head = repository.commit()
    for model in (None, "churn"):
        assert changed(repository.first, head, repository.root, model) == expected


def test_a_file_that_was_removed_or_renamed_counts(repository: Repository) -> None:
    repository.git("mv", "app/main.py", "training/main.py")
    assert changed(repository.first, repository.commit(), repository.root) == ["app/main.py"]


def test_names_that_git_would_quote_are_as_they_are(repository: Repository) -> None:
    repository.write("app/größe neu.py", "1")
    assert changed(repository.first, repository.commit(), repository.root) == ["app/größe neu.py"]


def test_the_same_commit_changes_nothing(repository: Repository) -> None:
    assert changed("HEAD", "main", repository.root) == []


def test_another_bundle_counts_for_its_model(repository: Repository) -> None:
    repository.write("dvc.lock", LOCK.format(card="c", model="other"))
    second = repository.commit()
    assert changed(repository.first, second, repository.root) == ["model"]
    assert changed(repository.first, second, repository.root, "churn") == []
    repository.write("models/churn/dvc.lock", LOCK.format(card="c", model="third"))
    third = repository.commit()
    assert changed(second, third, repository.root) == []
    assert changed(second, third, repository.root, "churn") == ["models/churn/model"]
    assert bundle_hash("HEAD", repository.root, "churn") == "third.dir"


def test_the_first_commit_of_a_further_model_counts(repository: Repository) -> None:
    assert bundle_hash("HEAD", repository.root, "wine") is None
    repository.write("models/wine/dvc.lock", LOCK.format(card="c", model="m"))
    assert changed(repository.first, repository.commit(), repository.root, "wine") == ["models/wine/model"]


def test_the_rest_of_the_lock_does_not(repository: Repository) -> None:
    repository.write("dvc.lock", LOCK.format(card="other", model="m") + "  track: {cmd: x}\n")
    assert changed(repository.first, repository.commit(), repository.root) == []


def test_the_first_bundle_counts(repository: Repository) -> None:
    (repository.root / "dvc.lock").unlink()
    without = repository.commit()
    assert bundle_hash(without, repository.root) is None
    assert changed(without, repository.first, repository.root) == ["model"]


def test_works_from_any_folder_of_the_clone(repository: Repository) -> None:
    repository.write("app/main.py", "2")
    head = repository.commit()
    assert changed(repository.first, head, repository.root / "app") == ["app/main.py"]


def test_a_commit_that_is_not_there_is_said(repository: Repository) -> None:
    with pytest.raises(GitError, match=r"0{40} is no commit of this clone .*--unshallow"):
        changed("0" * 40, "HEAD", repository.root)


def test_a_revision_is_no_option(repository: Repository) -> None:
    file = repository.root / "written"
    with pytest.raises(GitError, match="is no commit"):
        changed(f"--output={file}", "HEAD", repository.root)
    assert not file.exists()


def test_a_lock_with_the_marks_of_a_merge_is_said(repository: Repository) -> None:
    repository.write("dvc.lock", "<<<<<<< ours\nstages: {}\n=======\n")
    with pytest.raises(GitError, match=r"dvc\.lock cannot be read"):
        changed(repository.first, repository.commit(), repository.root)


def test_reads_the_lock_of_this_repository() -> None:
    assert re.fullmatch(r"[0-9a-f]{32}\.dir", bundle_hash("HEAD", ROOT) or "")

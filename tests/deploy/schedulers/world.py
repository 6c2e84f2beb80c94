"""A repository whose source has new data, and what `dvc repro` makes of it: runs of schedulers must come to the same bytes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from common import models
from tests.buckets import BUCKET, bucket
from tests.deploy.ci.conftest import Origin
from tests.deploy.github import FakeGitHub
from tests.e2e.clone import Clone, clone
from tests.tools import require

TOKEN = "the-token"
"""The only one that may write."""
IDENTITY = {"user.name": "Ada", "user.email": "ada@example.com"}
STORED = ("candidates", "data", "model", "reports/explore")
"""What DVC keeps of a model, beside what is in git."""


@dataclass(frozen=True)
class World:
    origin: Origin
    github: FakeGitHub
    storage: dict[str, str]
    expected: Path
    """A clone in which `dvc repro` ran on the new data."""

    def environment(self) -> dict[str, str]:
        """What a scheduler's workers have; no token for git."""
        github = {key: value for key, value in self.github.environment().items() if key != "GH_TOKEN"}
        return {
            **Clone(self.expected).environment(),
            **self.storage,
            **github,
            "GIT_CONFIG_GLOBAL": os.devnull,
        }


@contextmanager
def make(folder: Path) -> Iterator[World]:
    """Two models, `iris` from a table in S3 and `wine`. All of wine is in the DVC remote, and of iris nothing is trained."""
    for tool in ("git", "gh", "weed"):
        require(tool)
    with bucket(folder / "bucket") as variables:
        storage = {
            **variables,
            "AWS_ENDPOINT_URL": variables["AWS_ENDPOINT"],
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        first = clone(folder / "first")
        _reduce(first)
        rows = _rows()
        _upload(rows, storage)
        origin = Origin(folder / "origin.git")
        for command in (
            ["dvc", "remote", "add", "--force", "--default", "storage", f"s3://{BUCKET}/dvc"],
            ["dvc", "remote", "modify", "storage", "endpointurl", storage["AWS_ENDPOINT"]],
            ["python", "-m", "deploy.schedulers", "airflow"],
            ["dvc", "repro", "--quiet", "fetch", "models/wine/dvc.yaml"],
            ["python", "-m", "training.remote", "push", "models/wine"],
            ["git", "add", "--all"],
            [*_git(), "commit", "--quiet", "--message", "Start"],
            ["git", "clone", "--quiet", "--bare", ".", str(origin.folder)],
        ):
            _run(command, first.root, storage)
        # Of a table in a bucket DVC does not see it.
        _upload(rows[:1] + rows[4:], storage)
        expected = folder / "expected"
        _run(["git", "clone", "--quiet", str(origin.folder), str(expected)], folder, {})
        _run(["python", "-m", "training.remote", "pull", "models/wine"], expected, storage)
        _run(["dvc", "repro", "--quiet", "--single-item", "--force", "fetch"], expected, storage)
        _run(["dvc", "repro", "--quiet", "--all-pipelines"], expected, storage)
        with FakeGitHub(origin=origin.folder, tokens={TOKEN: "espalier[bot]"}) as github:
            yield World(origin, github, storage, expected)
            assert github.errors == []


def check(world: World, commit: str) -> None:
    """Check a proposal, a commit of the origin: what git holds of it, and its outputs in the DVC remote."""
    origin, expected = str(world.origin.folder), world.expected
    assert _run(["git", "diff", "--name-only", "main", commit], Path(origin), {}).splitlines() == sorted(
        _run(["git", "diff", "--name-only"], expected, {}).splitlines()
    )
    got = expected.with_name(f"got-{commit[:10]}")
    _run(["git", "clone", "--quiet", "--no-checkout", origin, str(got)], expected.parent, {})
    _run(["git", "checkout", "--quiet", commit], got, {})
    _run(["python", "-m", "training.remote", "pull"], got, world.storage)
    made, wanted = contents(got), contents(expected)
    assert made.keys() == wanted.keys()
    assert [path for path in made if made[path] != wanted[path]] == []


def contents(root: Path) -> dict[str, bytes]:
    """The bytes of all that the pipelines make, and of the locks."""
    tracked = _run(["git", "ls-files", "*dvc.lock", "*metrics/*", "*reports/*", "*MODEL_CARD.md"], root, {})
    kept = [
        file.relative_to(root).as_posix()
        for place in (root, root / "models/wine")
        for name in STORED
        for file in (place / name).rglob("*")
        if file.is_file()
    ]
    assert any(name.endswith("model/model.onnx") for name in kept)
    return {
        name: (root / name).read_bytes()
        for name in [*tracked.splitlines(), *kept]
        if ".gitignore" not in name
    }


def _reduce(made: Clone) -> None:
    """Leave what takes seconds."""
    others = [folder for name, folder in models.find(made.root).items() if name not in ("iris", "wine")]
    _run(["git", "rm", "-rq", *map(str, others)], made.root, {})
    for place, algorithms in (
        ("", ("logistic_regression", "decision_tree")),
        ("models/wine", ("logistic_regression",)),
    ):
        file = made.root / place / "params.yaml"
        document = yaml.safe_load(file.read_text())
        document["train"]["algorithms"] = dict.fromkeys(algorithms)
        for metrics in (made.root / place / "metrics").glob("*.json"):
            if metrics.stem not in algorithms:
                metrics.unlink()
        document.setdefault("evaluate", {}).update(parity_rows=2000, bootstrap=100)
        if not place:
            document["data"]["source"] = f"s3://{BUCKET}/source/iris.csv"
        file.write_text(yaml.safe_dump(document, sort_keys=False))


def _rows() -> list[str]:
    from sklearn.datasets import load_iris

    data = load_iris()
    header = "sepal_length,sepal_width,petal_length,petal_width,species"
    return [
        header,
        *(
            ",".join([*(f"{cell:.1f}" for cell in row), str(data.target_names[target])])
            for row, target in zip(data.data, data.target, strict=True)
        ),
    ]


def _upload(rows: list[str], storage: dict[str, str]) -> None:
    from obstore.store import S3Store

    store = S3Store(
        BUCKET,
        endpoint=storage["AWS_ENDPOINT"],
        access_key_id=storage["AWS_ACCESS_KEY_ID"],
        secret_access_key=storage["AWS_SECRET_ACCESS_KEY"],
        region=storage["AWS_REGION"],
        client_options={"allow_http": True},
    )
    store.put("source/iris.csv", ("\n".join(rows) + "\n").encode())


def _git() -> list[str]:
    return ["git", *(part for key, value in IDENTITY.items() for part in ("-c", f"{key}={value}"))]


def _run(command: list[str], folder: Path, variables: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=Clone(folder).environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout

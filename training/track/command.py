"""Mirror the runs to Weights & Biases: one per algorithm, one for the data, one for the comparison.

Reads  candidates/*/report.json, candidates/*/plots/*.csv, model/, reports/leaderboard.json, reports/explore/,
       params.yaml (name, track), wandb/
Writes wandb/: offline records, and tracked.json, which says what is recorded where; nothing that git or DVC keep

It is online if there is a key (WANDB_API_KEY or a netrc login) and offline without one. WANDB_MODE (online, offline or
disabled) overrides this. Recorded runs are skipped, and earlier offline records are sent as soon as there is a key.
Nothing depends on the tracker: if it fails, hangs or is not installed, there is a warning and exit code 0.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import netrc
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pandas as pd

from app.contract import EXPLANATION_FILE, MANIFEST_FILE, MODEL_FILE, Manifest, Task, read_bundle
from common import files
from training.base import cli, config
from training.base.errors import DataError
from training.base.section import Settings
from training.data.dataset import EXPLORE
from training.results import leaderboard, report
from training.results.board import Leaderboard
from training.results.report import Report
from training.sections.track import TrackSettings

log = logging.getLogger(__name__)

BUNDLE = Path("model")

Mode = Literal["online", "offline", "disabled"]
MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
SERVER = "https://api.wandb.ai"
OFFLINE = "offline"
CONNECT_SECONDS = 5.0


class TrackStageSettings(Settings):
    name: str
    track: TrackSettings


@dataclass(frozen=True)
class Run:
    """What one W&B run shows, as plain values."""

    id: str
    """Derived from the inputs: the same inputs are the same run, however often they are tracked."""
    name: str
    job_type: str
    tags: list[str]
    config: dict[str, Any]
    summary: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    charts: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    artifact: dict[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    group: str
    runs: list[Run]


def main() -> None:
    cli.parser("training.track", __doc__).parse_args()
    settings = config.load(TrackStageSettings)
    mode = choose_mode(os.environ)
    if mode == "disabled":
        log.info("tracking is off (WANDB_MODE=disabled)")
        return
    plan = read_plan(settings.name)
    try:
        log.info("%s", track(plan, settings.track, mode))
    except TrackingError as error:
        log.warning("warning: not tracked: %s; nothing depends on it", error)


def track(plan: Plan, settings: TrackSettings, mode: Mode) -> str:
    """Record the runs that are not recorded yet, and say where they all are.

    If the server does not accept them, there is a warning; they are recorded offline and sent the next time.

    Raises:
        TrackingError: nothing could be recorded.
    """
    folder = Path(os.environ.get("WANDB_DIR") or ".").absolute() / "wandb"
    with _locked(folder) as lock:
        ledger = Ledger.read(folder, lock, settings)
        if mode == "online":
            try:
                return _send(plan, settings, ledger)
            except TrackingError as error:
                log.warning("warning: not sent: %s; the next `make track` tries again", error)
        return _record(plan, settings, ledger)


def _send(plan: Plan, settings: TrackSettings, ledger: Ledger) -> str:
    runs = [each for each in plan.runs if not ledger.is_sent(plan.group, each.id)]
    earlier = ledger.unsent({each.id for each in plan.runs})
    if runs or earlier:
        check_reachable(os.environ)
        answer = hand_over(replace(plan, runs=runs), settings, "online", ledger, earlier)
        ledger.add(ledger.server, plan.group, runs)
        if "unsent" in answer:
            log.warning("warning: earlier runs are not sent: %s", answer["unsent"])
    return f"{_count(plan, runs)} at {ledger.server}"


def _record(plan: Plan, settings: TrackSettings, ledger: Ledger) -> str:
    runs = [each for each in plan.runs if not ledger.is_recorded(plan.group, each.id)]
    if runs:
        hand_over(replace(plan, runs=runs), settings, "offline", ledger)
        ledger.add(OFFLINE, plan.group, runs)
    folder = os.path.relpath(ledger.folder) if ledger.folder.is_relative_to(Path.cwd()) else ledger.folder
    return (
        f"{_count(plan, runs)} offline: `wandb leet {folder}` shows them, `make track` with a key sends them"
    )


def _count(plan: Plan, added: Sequence[Run]) -> str:
    return f"tracked {len(plan.runs)} runs in group {plan.group}, {len(added)} of them now,"


def choose_mode(environment: Mapping[str, str]) -> Mode:
    """The mode that the environment asks for; by default, online if there is a key."""
    wanted = environment.get("WANDB_MODE", "").strip().lower()
    if wanted in MODES:
        return MODES[wanted]
    if wanted:
        log.warning("warning: WANDB_MODE=%s is not known: online, offline and disabled are", wanted)
    if environment.get("WANDB_DISABLED", "").strip().lower() in {"true", "1", "yes"}:
        return "disabled"
    return "online" if _has_key(environment) else "offline"


def _has_key(environment: Mapping[str, str]) -> bool:
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL") or SERVER).netloc
    named = environment.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        with suppress(OSError, netrc.NetrcParseError):
            login = netrc.netrc(str(path)).authenticators(host)
            if login is not None and login[2]:
                return True
    return False


# ----------------------------------------------------------------------------------------------- content


def read_plan(name: str) -> Plan:
    """What there is to track.

    Raises:
        DataError, BundleError: an earlier stage has not run or its output is broken.
    """
    board = leaderboard.read()
    manifest = read_bundle(BUNDLE).manifest
    reports = [report.read(row.algorithm) for row in board.rows]
    plots = {each.algorithm: read_plots(each.algorithm, manifest.task) for each in reports}
    return make_plan(name, board, manifest, reports, plots, sorted(EXPLORE.glob("*.png")))


def read_plots(algorithm: str, task: Task) -> dict[str, pd.DataFrame]:
    frames = {}
    for plot in report.PLOTS[task]:
        path = report.directory(algorithm) / "plots" / f"{plot}.csv"
        texts = ["class", "feature", *(["actual", "predicted"] if plot == "confusion" else [])]
        try:
            frames[plot] = pd.read_csv(
                path,
                dtype=dict.fromkeys(texts, "str"),
                keep_default_na=False,  # a class may be called NA
                na_values=[""],
            )
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}; run `dvc repro train@{algorithm}`") from None
    return frames


def _as_json(frame: pd.DataFrame) -> dict[str, Any]:
    """The columns and the data; a missing number is None."""
    return frame.astype(object).where(frame.notna(), None).to_dict("split", index=False)


def make_plan(
    name: str,
    board: Leaderboard,
    manifest: Manifest,
    reports: Sequence[Report],
    plots: Mapping[str, Mapping[str, pd.DataFrame]],
    images: Sequence[Path],
) -> Plan:
    digests = [_digest(each.model_dump_json()) for each in reports]
    group = f"{name}-{_digest(name, manifest.data.sha256, *digests)[:8]}"
    runs = []
    for each, digest in zip(reports, digests, strict=True):
        champion = each.algorithm == manifest.algorithm
        runs.append(
            algorithm_run(
                f"{each.algorithm}-{_digest(name, each.algorithm, digest)[:12]}",
                name,
                each,
                plots[each.algorithm],
                manifest,
                artifact=bundle_artifact(name, manifest) if champion else None,
            )
        )
    # The data run shows the pictures, so they are part of its identity.
    pictures = [hashlib.sha256(each.read_bytes()).hexdigest() for each in images]
    described = {"data", "features", "classes", "class_shares", "target"}
    content = manifest.model_dump_json(include=described | ({"value"} if manifest.value else set()))
    runs.append(data_run(f"data-{_digest(name, content, *pictures)[:12]}", name, manifest, images))
    identity = _digest(name, board.model_dump_json(), manifest.digest, *digests)
    runs.append(comparison_run(f"leaderboard-{identity[:12]}", name, board, manifest, reports))
    return Plan(group, runs)


def algorithm_run(
    id: str,
    name: str,
    result: Report,
    plots: Mapping[str, pd.DataFrame],
    manifest: Manifest,
    *,
    artifact: dict[str, Any] | None,
) -> Run:
    summary: dict[str, Any] = {}
    for metric, folds in result.cv.items():
        summary |= {f"cv/{metric}": folds.mean, f"cv/{metric}_std": folds.std}
    for metric, score in result.train.items():
        summary[f"train/{metric}"] = score.value
    for metric, score in result.test.items():
        summary[f"test/{metric}"] = score.value
        if score.low is not None and score.high is not None:
            summary |= {f"test/{metric}_low": score.low, f"test/{metric}_high": score.high}
    if interval := result.interval:
        summary |= {
            "interval/level": interval.level,
            "interval/margin": interval.margin,
            "interval/coverage": interval.coverage.value,
            "interval/coverage_low": interval.coverage.low,
            "interval/coverage_high": interval.coverage.high,
        }
    summary |= {
        "champion": artifact is not None,
        "model/bytes": result.model.bytes,
        "model/complexity": result.complexity,
        "parity/label_differences": result.parity.label_differences,
        "parity/largest_difference": result.parity.largest_difference,
    }
    counts = range(len(next(iter(result.cv.values())).folds))
    return Run(
        id=id,
        name=f"{name} {result.algorithm}",
        job_type="train",
        tags=[name, result.algorithm, *(["champion"] if artifact else [])],
        config={
            "name": name,
            "algorithm": result.algorithm,
            "parameters": result.parameters,
            "search": result.search.model_dump(mode="json") if result.search else None,
            "score": result.score,
            "data": manifest.data.model_dump(mode="json"),
            "model_sha256": result.model.sha256,
        },
        summary=summary,
        history=[
            {f"fold/{metric}": each.folds[fold] for metric, each in result.cv.items()} for fold in counts
        ],
        tables=_tables_by_class(result, plots) if manifest.task == "classification" else {},
        charts=charts(plots, manifest.task),
        artifact=artifact,
    )


def _tables_by_class(result: Report, plots: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    return {
        "per_class": {
            "columns": ["class", "precision", "recall", "f1", "roc_auc", "support"],
            "data": [[label, *each.model_dump().values()] for label, each in result.per_class.items()],
        },
        "calibration": _as_json(plots["calibration"]),
    }


def charts(plots: Mapping[str, pd.DataFrame], task: Task) -> dict[str, dict[str, Any]]:
    """Charts by the presets that every W&B server has: the arguments of `wandb.plot_table`."""
    return {
        **(_charts_of_classes(plots) if task == "classification" else _charts_of_values(plots)),
        "importance": {
            "preset": "wandb/bar/v0",
            "table": _as_json(plots["importance"]),
            "fields": {"label": "feature", "value": "importance"},
            "labels": {"title": "Permutation importance"},
        },
    }


def _charts_of_classes(plots: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    confusion = plots["confusion"][["actual", "predicted", "count"]]
    confusion.columns = ["Actual", "Predicted", "nPredictions"]

    def curve(plot: str, title: str, x: str, y: str, x_title: str, y_title: str) -> dict[str, Any]:
        return {
            "preset": "wandb/area-under-curve/v0",
            "table": _as_json(plots[plot]),
            "fields": {"x": x, "y": y, "class": "class"},
            "labels": {"title": title, "x-axis-title": x_title, "y-axis-title": y_title},
        }

    return {
        "confusion": {
            "preset": "wandb/confusion_matrix/v1",
            "table": _as_json(confusion),
            "fields": {each: each for each in confusion.columns},
            "labels": {"title": "Confusion matrix"},
        },
        "roc": curve("roc", "ROC", "fpr", "tpr", "False positive rate", "True positive rate"),
        "precision_recall": curve(
            "precision_recall", "Precision and recall", "recall", "precision", "Recall", "Precision"
        ),
    }


def _charts_of_values(plots: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    def scatter(plot: str, y: str, title: str) -> dict[str, Any]:
        return {
            "preset": "wandb/scatter/v0",
            "table": _as_json(plots[plot]),
            "fields": {"x": "predicted", "y": y},
            "labels": {"title": title},
        }

    return {
        "predicted": scatter("predicted", "actual", "Actual against predicted"),
        "residuals": scatter("residuals", "residual", "Residuals"),
    }


def bundle_artifact(name: str, manifest: Manifest) -> dict[str, Any]:
    return {
        "name": name,
        "type": "model",
        "files": [
            str(BUNDLE / name)
            for name in (MODEL_FILE, EXPLANATION_FILE, MANIFEST_FILE)
            if manifest.explanation or name != EXPLANATION_FILE
        ],
        "metadata": {
            "version": manifest.version,
            "digest": manifest.digest,
            "algorithm": manifest.algorithm,
            "data_source": manifest.data.source,
            "data_sha256": manifest.data.sha256,
            "model_sha256": manifest.model.sha256,
        },
        "aliases": ["champion", manifest.version],
    }


def data_run(id: str, name: str, manifest: Manifest, images: Sequence[Path]) -> Run:
    features = []
    for each in manifest.features:
        if each.type == "number":
            values = f"{each.minimum:g} to {each.maximum:g}"
        elif each.type == "datetime":
            values = each.span
        else:
            values = ", ".join(each.categories)
        features.append([each.name, each.type, each.unit, values, str(each.typical), each.missing])
    return Run(
        id=id,
        name=f"{name} data",
        job_type="data",
        tags=[name, "data"],
        config={"name": name, "target": manifest.target, "data": manifest.data.model_dump(mode="json")},
        summary={
            "rows/train": manifest.data.train_rows,
            "rows/test": manifest.data.test_rows,
            "count/features": len(manifest.features),
            **({} if manifest.value else {"count/classes": len(manifest.classes)}),
        },
        tables={
            "features": {
                "columns": ["feature", "type", "unit", "values", "typical", "may be missing"],
                "data": features,
            },
            **_shares(manifest),
        },
        images={each.stem: str(each) for each in images},
    )


def _shares(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """How the target is distributed in training."""
    if manifest.value is None:
        rows = list(zip(manifest.classes, manifest.class_shares, strict=True))
        return {"class_shares": {"columns": ["class", "share"], "data": rows}}
    bins = [[each.label, each.share] for each in manifest.value.bins]
    return {"target_shares": {"columns": [manifest.target, "share"], "data": bins}}


def comparison_run(
    id: str, name: str, board: Leaderboard, manifest: Manifest, reports: Sequence[Report]
) -> Run:
    by_name = {each.algorithm: each for each in reports}
    metrics = list(reports[0].test)
    columns = ["rank", "algorithm", f"cv/{board.score}", f"cv/{board.score}_std"]
    columns += [f"test/{each}" for each in metrics] + ["complexity", "bytes"]
    rows = []
    for rank, row in enumerate(board.rows, start=1):
        test = by_name[row.algorithm].test
        scores = [test[each].value for each in metrics]
        rows.append([rank, row.algorithm, row.cv_mean, row.cv_std, *scores, row.complexity, row.bytes])
    return Run(
        id=id,
        name=f"{name} leaderboard",
        job_type="select",
        tags=[name, "leaderboard"],
        config={"name": name, "score": board.score, "data": manifest.data.model_dump(mode="json")},
        summary={"champion": board.champion, "version": board.version, "rule": board.rule},
        tables={"leaderboard": {"columns": columns, "data": rows}},
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------ ledger


@dataclass
class Ledger:
    """Where each run is recorded: `wandb/tracked.json`.

    It belongs to the machine and not to the repository, because clones send runs independently.
    """

    folder: Path
    lock: int
    """A descriptor that every process that writes into the folder keeps open."""
    server: str
    """Where runs are sent: address, entity and project."""
    places: dict[str, dict[str, str]]
    """By place (a server or `OFFLINE`) and run id, the group: an unchanged run moves to the group of the next
    comparison."""

    @classmethod
    def read(cls, folder: Path, lock: int, settings: TrackSettings) -> Ledger:
        parts = [os.environ.get("WANDB_BASE_URL") or SERVER, settings.entity, settings.project]
        try:
            read = json.loads((folder / "tracked.json").read_bytes())
            places = {place: {id: str(group) for id, group in runs.items()} for place, runs in read.items()}
        except (OSError, ValueError, AttributeError, RecursionError):
            # Then everything is recorded again, under the same ids.
            places = {}
        return cls(folder, lock, "/".join(each.strip("/") for each in parts if each), places)

    def is_sent(self, group: str, id: str) -> bool:
        return self.places.get(self.server, {}).get(id) == group

    def is_recorded(self, group: str, id: str) -> bool:
        """Whether it was sent, or completely recorded offline in a record that still exists."""
        offline = self.places.get(OFFLINE, {}).get(id) == group
        return self.is_sent(group, id) or (offline and any(self.folder.glob(f"offline-run-*-{id}")))

    def unsent(self, current: Collection[str]) -> list[str]:
        """The offline records of earlier comparisons. Other projects may use the same folder."""
        earlier = self.places.get(OFFLINE, {}).keys() - set(current)
        return [str(path) for id in sorted(earlier) for path in self.folder.glob(f"offline-run-*-{id}")]

    def add(self, place: str, group: str, runs: Iterable[Run]) -> None:
        """Record that a place has these runs.

        Raises:
            TrackingError: it cannot be written.
        """
        self.places.setdefault(place, {}).update({each.id: group for each in runs})
        try:
            files.write_json(self.folder / "tracked.json", self.places)
        except OSError as error:
            raise TrackingError(f"cannot write {self.folder / 'tracked.json'}: {error.strerror}") from None


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Lock a folder: two processes would record the same runs and overwrite each other's ledger.

    Yields:
        The lock's descriptor. A child that inherits it keeps the lock even if this process is killed.

    Raises:
        TrackingError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "tracked.lock").open("ab")
    except OSError as error:
        raise TrackingError(f"cannot write to {folder}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that tracks into %s", folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


# ----------------------------------------------------------------------------------------------- hand-over


class TrackingError(Exception):
    """Nothing could be tracked; the message gives the reason."""


def hand_over(
    plan: Plan, settings: TrackSettings, mode: Mode, ledger: Ledger, earlier: Sequence[str] = ()
) -> dict[str, Any]:
    """Let a child process record the plan's runs and send earlier offline records.

    wandb may raise, print, hang or crash without affecting this process.

    Returns:
        The child's answer: `unsent` says why earlier records could not be sent.

    Raises:
        TrackingError: it failed or took longer than `track.timeout_seconds`.
    """
    message = {
        "mode": mode,
        "project": settings.project,
        "entity": settings.entity,
        "root": str(ledger.folder.parent),
        "earlier": list(earlier),
        "timeout": settings.timeout_seconds,
        **asdict(plan),
    }
    with (
        tempfile.TemporaryDirectory() as cache,
        tempfile.TemporaryFile() as asked,
        tempfile.TemporaryFile() as answered,
        tempfile.TemporaryFile() as said,
    ):
        asked.write(json.dumps(message).encode())
        asked.seek(0)
        # Files instead of pipes: a surviving grandchild would keep a pipe open and block the reader.
        child = subprocess.Popen(
            [sys.executable, "-m", "training.track.recorder"],
            stdin=asked,
            stdout=answered,
            stderr=said,
            env=_environment(cache),
            start_new_session=True,
            pass_fds=[ledger.lock],
        )
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            code = child.wait(timeout=settings.timeout_seconds)
        except subprocess.TimeoutExpired:
            limit = f"{settings.timeout_seconds:g} s (track.timeout_seconds)"
            raise TrackingError(f"no answer after {limit}") from None
        finally:
            _end(child)
            signal.signal(signal.SIGTERM, before)
        answered.seek(0)
        said.seek(0)
        return _answer(answered.read(), said.read(), code)


def check_reachable(environment: Mapping[str, str]) -> None:
    """Raise TrackingError unless the server's address takes connections: wandb itself would retry for minutes."""
    url = urlsplit(environment.get("WANDB_BASE_URL") or SERVER)
    if any(environment.get(each) for each in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")):
        return
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        socket.create_connection((url.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise TrackingError(f"cannot reach {url.netloc or 'WANDB_BASE_URL'}: {error}") from None


def _stop(number: int, _: object) -> None:
    """Leave through `finally`, so that the child does not outlive this process."""
    sys.exit(128 + number)


def _answer(answered: bytes, said: bytes, code: int) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = dict(json.loads(answered.decode(errors="replace").splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = said.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise TrackingError(f"the tracker ended with code {code}: {last[0][:300]}") from None
    if "error" in answer:
        raise TrackingError(answer["error"])
    return answer


def _environment(cache: str) -> dict[str, str]:
    environment = dict(os.environ)
    # Otherwise uploaded artifacts accumulate in the home folder.
    environment.setdefault("WANDB_CACHE_DIR", cache)
    environment.setdefault("WANDB_ERROR_REPORTING", "false")
    # The child must import this package from any working directory.
    top = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [top, environment.get("PYTHONPATH")]))
    return environment


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and its descendants; wandb's service leaves the process group, so killing that is not enough."""
    if child.poll() is not None:
        return
    import psutil

    with suppress(psutil.Error):
        left = psutil.Process(child.pid).children(recursive=True)
        for each in left:
            with suppress(psutil.Error):
                each.kill()
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.wait()

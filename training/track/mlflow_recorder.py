"""MLflow: a server that MLFLOW_TRACKING_URI names, and a store in `mlruns/` without one."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import models
from training.track.recorder import Mode, Recorder, TrackingError, reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

URI = "MLFLOW_TRACKING_URI"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
ID = "espalier.id"
"""The tag that finds a run again: MLflow makes ids by chance, and the same inputs are the same run."""
RECORD = "run.json"
"""In the artifacts of each run: all of it, from which it is sent later."""
LONGEST = {"param": 6000, "tag": 8000, "name": 250}
"""What MLflow accepts, in characters."""
BATCH = 100
MISSING = "MLflow is not installed: run `uv sync --inexact --group mlflow`"


class MlflowRecorder(Recorder):
    @staticmethod
    def default_folder(environment: Mapping[str, str]) -> Path:  # noqa: ARG004 - the interface
        """One for all models of the repository, so that one page shows them."""
        here = Path.cwd()
        return (here.parent.parent if models.further(here) else here) / "mlruns"

    def mode(self, environment: Mapping[str, str]) -> Mode:
        return "online" if environment.get(URI) else "offline"

    def server(self, environment: Mapping[str, str]) -> str:
        return environment.get(URI, "")

    def place(self, environment: Mapping[str, str]) -> str:
        return f"{self.server(environment).rstrip('/')} {self.experiment(environment)}"

    def experiment(self, environment: Mapping[str, str]) -> str:
        return environment.get(EXPERIMENT) or f"{self.project}/{self.name}"

    @property
    def registered(self) -> str:
        """The name of the registered model."""
        return f"{self.project}-{self.name}"

    def check_reachable(self, environment: Mapping[str, str]) -> None:
        server = self.server(environment)
        if re.match(r"[\w.-]+:\d+(/|$)", server):
            raise TrackingError(f"{URI}={server} has no scheme: write http://{server}")
        super().check_reachable(environment)

    def has_record(self, id: str) -> bool:  # noqa: ARG002 - the store keeps all runs
        return self._database.is_file()

    def hint(self) -> str:
        return f"`make mlflow` shows them, `make track` with {URI} sends them"

    def settings(self, cache: str) -> Mapping[str, str]:  # noqa: ARG002 - it needs none
        return {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, int(self.timeout / 4))),
        }

    def record(self, group: str, runs: Sequence[Mapping[str, Any]], mode: Mode) -> None:
        client = self.client(None if mode == "offline" else self.server(os.environ))
        for each in runs:
            self._record(client, group, each)

    def send(self, ids: Sequence[str]) -> dict[str, str]:
        here, there = self.client(None), self.client(self.server(os.environ))
        unsent = {}
        for id in ids:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    group, run = self._read(here, id, Path(folder))
                    self._record(there, group, run)
            except Exception as error:  # one that cannot be read does not keep the others here
                unsent[id] = reason_of(error)
        return unsent

    def client(self, uri: str | None) -> MlflowClient:
        """A client of a server, or of the store on this machine if it is None."""
        try:
            import mlflow
        except ImportError:
            raise TrackingError(MISSING) from None
        if not uri and not self._database.exists():
            # MLflow makes its tables one by one, and a database that has only some of them cannot be used or completed.
            begun = self._database.with_suffix(".tmp")
            begun.unlink(missing_ok=True)
            mlflow.MlflowClient(f"sqlite:///{begun}").search_experiments()
            begun.replace(self._database)
        return mlflow.MlflowClient(uri or f"sqlite:///{self._database}")

    @property
    def _database(self) -> Path:
        return Path(self.folder) / "mlflow.db"

    def _record(self, client: MlflowClient, group: str, content: Mapping[str, Any]) -> None:
        """Create the run, or bring it up to date. What an interrupted process began is written over."""
        experiment = self._experiment(client)
        run = find(client, experiment, content["id"])
        time = int(1000 * made) if (made := content.get("made")) else None  # older records have no such key
        if run is None:
            tags = {ID: content["id"], "job_type": content["job_type"], "group": group}
            run = client.create_run(experiment, time, tags, content["name"])
        id = run.info.run_id
        client.set_tag(id, "group", group)
        if run.info.status == "FINISHED":
            return
        self._log_values(client, run, content)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            tables = write_files(content, group, folder)
            client.log_artifacts(id, str(folder))
        # The page shows these as tables.
        shown = [{"path": path, "type": "table"} for path in tables]
        if shown:
            client.set_tag(id, "mlflow.loggedArtifacts", json.dumps(shown))
        if content["artifact"]:
            from training.track.mlflow_models import log_bundle

            log_bundle(client, run, self.registered, content["artifact"])
        client.set_terminated(id, end_time=time)

    def _log_values(self, client: MlflowClient, run: Run, content: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

        # One time for all: the store ignores a value that it has with the same name, step and time.
        time = run.info.start_time
        numbers = {key: value for key, value in content["summary"].items() if is_number(value)}
        metrics = [Metric(valid_name(key), float(value), time, 0) for key, value in numbers.items()]
        for step, row in enumerate(content["history"]):
            metrics += [Metric(valid_name(key), float(value), time, step) for key, value in row.items()]
        params = [
            Param(valid_name(key), _short(value, "param"))
            for key, value in flattened(content["config"])
            if value is not None
        ]
        others = {key: value for key, value in content["summary"].items() if key not in numbers}
        tags = [RunTag(valid_name(key), _short(value, "tag")) for key, value in others.items()]
        tags.append(RunTag("tags", ", ".join(content["tags"])))
        for batch in _batches(metrics):
            client.log_batch(run.info.run_id, metrics=batch)
        for batch in _batches(params):
            client.log_batch(run.info.run_id, params=batch)
        for batch in _batches(tags):
            client.log_batch(run.info.run_id, tags=batch)
        data = content["config"].get("data")
        if data:
            source = json.dumps({"source": data["source"]})
            described = Dataset(content["config"]["name"], data["sha256"][:12], "espalier", source)
            client.log_inputs(run.info.run_id, [DatasetInput(described)])

    def _experiment(self, client: MlflowClient) -> str:
        """The id of the model's experiment, which is created if it does not exist."""
        from mlflow.exceptions import MlflowException

        name = self.experiment(os.environ)
        found = client.get_experiment_by_name(name)
        if found is None:
            local = client.tracking_uri == f"sqlite:///{self._database}"
            location = (Path(self.folder) / "artifacts" / name).as_uri() if local else None
            try:
                made = client.create_experiment(name, artifact_location=location)
            except MlflowException:
                # Another process created it at the same time.
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
            else:
                # Otherwise the page asks what kind of experiment it is.
                client.set_experiment_tag(made, "mlflow.experimentKind", "custom_model_development")
                return str(made)
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _read(self, client: MlflowClient, id: str, folder: Path) -> tuple[str, dict[str, Any]]:
        """A run that was recorded on this machine, with its files in a folder."""
        run = find(client, self._experiment(client), id)
        if run is None:
            raise TrackingError(f"{self._database} has no run {id}")
        client.download_artifacts(run.info.run_id, "", str(folder))
        content: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        content["images"] = {key: str(folder / path) for key, path in content["images"].items()}
        if content["artifact"]:
            content["artifact"]["files"] = [str(folder / path) for path in content["artifact"]["files"]]
        return run.data.tags["group"], content


def find(client: MlflowClient, experiment: str, id: str) -> Run | None:
    """The run with this id of ours."""
    found = client.search_runs(
        [experiment], f"tags.`{ID}` = '{id}'", max_results=1, order_by=["attributes.start_time ASC"]
    )
    return found[0] if found else None


def write_files(content: Mapping[str, Any], group: str, folder: Path) -> list[str]:
    """Write what a run shows beside its values: tables, charts, pictures, the bundle, and all of it as `RECORD`.

    Returns:
        The paths of the tables, from the folder.
    """
    from training.track.figures import draw

    def copied(path: str, to: str) -> str:
        (folder / to).mkdir(exist_ok=True)
        shutil.copyfile(path, folder / to / Path(path).name)
        return f"{to}/{Path(path).name}"

    record = {key: value for key, value in content.items() if key != "group"} | {"group": group}
    record["images"] = {key: copied(path, "images") for key, path in content["images"].items()}
    if content["artifact"]:
        files = [copied(path, "bundle") for path in content["artifact"]["files"]]
        record["artifact"] = {**content["artifact"], "files": files}
    (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    tables = {**content["tables"], **{key: chart["table"] for key, chart in content["charts"].items()}}
    for name, table in tables.items():
        (folder / "tables").mkdir(exist_ok=True)
        (folder / "tables" / f"{name}.json").write_text(json.dumps(table), encoding="utf-8")
    for name, chart in content["charts"].items():
        (folder / "charts").mkdir(exist_ok=True)
        draw(chart, folder / "charts" / f"{name}.png")
    return [f"tables/{name}.json" for name in tables]


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, named by their path with dots."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def valid_name(text: str) -> str:
    """A name that MLflow accepts; where it has to differ, a digest keeps it apart from others."""
    allowed = re.sub(r"[^\w.\- :/]", "_", text)[: LONGEST["name"]]
    if posixpath.normpath(allowed) != allowed or allowed[0] in "./":
        # It would not be a path below a folder.
        allowed = re.sub(r"[./]", "_", allowed)
    if allowed == text:
        return text
    return f"{allowed[: LONGEST['name'] - 9]} {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _short(value: Any, kind: str) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    longest = LONGEST[kind]
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + BATCH] for start in range(0, len(values), BATCH))

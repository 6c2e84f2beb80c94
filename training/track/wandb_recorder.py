"""Weights & Biases: online with a key, and offline records in `wandb/` without one."""

from __future__ import annotations

import logging
import netrc
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from training.track.recorder import HINT, Mode, Recorder

log = logging.getLogger(__name__)

SERVER = "https://api.wandb.ai"
MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
PRESETS = {
    "confusion": ("wandb/confusion_matrix/v1", {"x": "Predicted", "y": "Actual", "series": "nPredictions"}),
    "curve": ("wandb/area-under-curve/v0", {"x": "x", "y": "y", "series": "class"}),
    "scatter": ("wandb/scatter/v0", {"x": "x", "y": "y"}),
    "bar": ("wandb/bar/v0", {"x": "value", "y": "label"}),
}
"""For each kind of chart the preset that every server has, and what it calls the columns."""


class WandbRecorder(Recorder):
    @staticmethod
    def default_folder(environment: Mapping[str, str]) -> Path:
        return Path(environment.get("WANDB_DIR") or ".").absolute() / "wandb"

    def mode(self, environment: Mapping[str, str]) -> Mode:
        """What the environment asks for; by default, online if there is a key."""
        wanted = environment.get("WANDB_MODE", "").strip().lower()
        if wanted in MODES:
            return MODES[wanted]
        if wanted:
            log.warning("warning: WANDB_MODE=%s is not known: online, offline and disabled are", wanted)
        if environment.get("WANDB_DISABLED", "").strip().lower() in {"true", "1", "yes"}:
            return "disabled"
        return "online" if _has_key(environment) else "offline"

    def server(self, environment: Mapping[str, str]) -> str:
        return environment.get("WANDB_BASE_URL") or SERVER

    def place(self, environment: Mapping[str, str]) -> str:
        parts = [self.server(environment), self.entity, self.project]
        return "/".join(each.strip("/") for each in parts if each)

    def has_record(self, id: str) -> bool:
        return bool(self._records(id))

    def hint(self) -> str:
        folder = Path(self.folder)
        shown = os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else folder
        return f"`wandb leet {shown}` shows them, `make track` with a key sends them"

    def settings(self, cache: str) -> Mapping[str, str]:
        # Otherwise uploaded artifacts accumulate in the home folder.
        return {"WANDB_CACHE_DIR": cache, "WANDB_ERROR_REPORTING": "false"}

    def record(self, group: str, runs: Sequence[Mapping[str, Any]], mode: Mode) -> None:
        """The same, and remove a run's earlier offline records."""
        import wandb

        for each in runs:
            earlier = self._records(each["id"])
            with wandb.init(
                project=self.project,
                entity=self.entity,
                id=each["id"],
                name=each["name"],
                group=group,
                job_type=each["job_type"],
                tags=each["tags"],
                config=each["config"],
                settings=self._quiet(mode),
                # The id is derived from the inputs, so the same id is the same run.
                resume=None if mode == "offline" else "allow",
            ) as run:
                # Copies of an artifact's files, needed until the upload, are removed with the record.
                record = Path(run.dir).parent
                staging = record / "staging"
                os.environ["WANDB_DATA_DIR"] = str(staging)
                _log(run, each)
            # Folder names have a resolution of a second, so an earlier record may be this one.
            for path in [each for each in earlier if each != record] + (
                [] if mode == "offline" else [staging]
            ):
                shutil.rmtree(path, ignore_errors=True)

    def send(self, ids: Sequence[str]) -> dict[str, str]:
        """The same, and remove the records that were sent."""
        unsent = {}
        for id in ids:
            for record in self._records(id):
                done = subprocess.run(
                    [sys.executable, "-m", "wandb", "sync", str(record)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                    check=False,
                )
                if done.returncode == 0:
                    shutil.rmtree(record, ignore_errors=True)
                else:
                    last = done.stdout.strip().splitlines()[-1:]
                    unsent[id] = last[0][:HINT] if last else f"`wandb sync` ended with {done.returncode}"
        return unsent

    def _records(self, id: str) -> list[Path]:
        return list(Path(self.folder).glob(f"offline-run-*-{id}"))

    def _quiet(self, mode: Mode) -> Any:
        """Without data about the machine or the person, because inputs alone describe a run."""
        import wandb

        return wandb.Settings(
            mode=mode,
            root_dir=str(Path(self.folder).parent),
            init_timeout=self.timeout,
            login_timeout=self.timeout,
            silent=True,
            console="off",
            program="python -m training.track",
            host="",
            disable_git=True,
            disable_code=True,
            save_code=False,
            disable_job_creation=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )


def _log(run: Any, content: Mapping[str, Any]) -> None:
    import wandb

    # Numbered steps, so that tracking a run again does not extend its history.
    for step, row in enumerate(content["history"]):
        run.log(row, step=step)
    media: dict[str, Any] = {key: wandb.Image(path) for key, path in content["images"].items()}
    for key, table in content["tables"].items():
        media[key] = wandb.Table(**table)
    for key, chart in content["charts"].items():
        preset, called = PRESETS[chart["kind"]]
        labels = {"title": chart["title"], "x-axis-title": chart["x_title"], "y-axis-title": chart["y_title"]}
        media[key] = wandb.plot_table(
            preset,
            wandb.Table(**chart["table"]),
            {field: chart[axis] for axis, field in called.items()},
            {name: text for name, text in labels.items() if text},
        )
    if media:
        run.log(media, step=len(content["history"]))
    run.summary.update(content["summary"])
    if content["artifact"]:
        described = content["artifact"]
        artifact = wandb.Artifact(described["name"], "model", metadata=described["metadata"])
        for path in described["files"]:
            artifact.add_file(path)
        run.log_artifact(artifact, aliases=described["aliases"])


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

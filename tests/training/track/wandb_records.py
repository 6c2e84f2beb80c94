"""Reads W&B's offline records, which `wandb sync` would upload."""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, struct.Struct("<IHB")


@dataclass
class Recorded:
    """What one `.wandb` file says."""

    run: Any
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    files: Path = Path()

    def table(self, key: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.files / self.summary[key]["path"]).read_text())
        return content


def chunks(content: bytes) -> Iterator[bytes]:
    """Records of the log format that wandb shares with LevelDB: blocks of 32 KiB with pieces of records."""
    position, pieces = 7, b""
    while position + HEADER.size <= len(content):
        room = BLOCK - position % BLOCK
        if room < HEADER.size:
            position += room
            continue
        _, length, kind = HEADER.unpack_from(content, position)
        position += HEADER.size
        pieces += content[position : position + length]
        position += length
        if kind in (1, 4):  # the whole record, or its last piece
            yield pieces
            pieces = b""


def read_run(folder: Path) -> Recorded:
    (path,) = folder.glob("*.wandb")
    # Here, because it takes a second to import.
    pb: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    result = Recorded(pb.RunRecord(), files=folder / "files")
    for chunk in chunks(content):
        record = pb.Record.FromString(chunk)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            result.run = record.run
            put(result.config, record.run.config.update)
        elif kind == "config":
            put(result.config, record.config.update)
        elif kind == "summary":
            put(result.summary, record.summary.update)
        elif kind == "history":
            result.history.append(put({}, record.history.item))
            result.summary |= result.history[-1]
        elif kind == "artifact":
            result.artifacts.append(record.artifact)
    return result


def put(content: dict[str, Any], updates: Any) -> dict[str, Any]:
    for each in updates:
        *parents, last = list(each.nested_key) or [each.key]
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = json.loads(each.value_json)
    return content


def read_runs(root: Path) -> dict[str, Recorded]:
    """By job type, or by algorithm for the training runs."""
    runs = {}
    for folder in root.glob("wandb/offline-run-*"):
        run = read_run(folder)
        runs[run.config["algorithm"] if run.run.job_type == "train" else run.run.job_type] = run
    return runs

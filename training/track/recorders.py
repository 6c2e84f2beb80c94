"""The trackers that `track.to` may name."""

from __future__ import annotations

from training.track.mlflow_recorder import MlflowRecorder
from training.track.recorder import Recorder
from training.track.wandb_recorder import WandbRecorder

RECORDERS: dict[str, type[Recorder]] = {"wandb": WandbRecorder, "mlflow": MlflowRecorder}

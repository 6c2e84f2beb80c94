"""Starts the image that was built last for a model as a cluster would, and sends it requests as a client would.

The container has a read-only root, no capabilities and no new privileges. It must serve the model's bundle, predict each
of its examples, and end with 0 after SIGTERM. docker or podman runs it (podman also has buildah's images) with the
further options in IMAGE_RUN_ARGS, such as `--network=host`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from common import models
from common.command import run
from common.ports import free_port
from deploy.errors import DeployError
from deploy.programs import call, find

RECORDS = Path("build/images")
"""Where `python -m deploy.image` describes its last build of each model."""
MANIFEST = "model/model.json"
START_SECONDS = 60
STOP_SECONDS = 30
"""More than the service waits and drains after SIGTERM."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.ci.smoke", description=__doc__)
    parser.add_argument("--model", default="", metavar="NAME", help="a model, or all (default: the first)")
    for name, folder in models.select(parser.parse_args().model, Path()).items():
        _try(_read(RECORDS / f"{name}.json", name), _read(folder / MANIFEST, name))


def _try(record: dict[str, Any], manifest: dict[str, Any]) -> None:
    engine = "docker" if record["tool"] == "docker" else "podman"
    container = Container(find(engine, f"{record['tool']} built the image"), record["reference"])
    try:
        container.wait()
        count = container.predict(manifest)
        status = container.stop()
    finally:
        container.remove()
    if status:
        raise DeployError(f"after SIGTERM it ended with {status}")
    print(
        f"{record['reference']} answers {count} examples as {manifest['name']} {manifest['version']} and ends with 0"
    )


class Container:
    """A container of the image that listens on a free port of this machine."""

    def __init__(self, engine: str, image: str) -> None:
        self.engine = engine
        port = free_port()
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False)
        extra = shlex.split(os.environ.get("IMAGE_RUN_ARGS", ""))
        publish = [] if "--network=host" in extra else [f"--publish=127.0.0.1:{port}:{port}"]
        hardened = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
        self.id = self._call(
            "run",
            "--detach",
            "--pull=never",
            *hardened,
            f"--env=ESPALIER_PORT={port}",
            *publish,
            *extra,
            image,
        )

    def wait(self) -> None:
        """Wait until it is ready.

        Raises:
            DeployError: it ends, or takes too long; the message has its last line of output.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._call("inspect", "--format={{.State.Running}}", self.id) != "true":
                break
            try:
                if self._client.get("/health/ready").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        done = subprocess.run(
            [self.engine, "logs", self.id],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        lines = (done.stdout + done.stderr).strip().splitlines() or ["it printed nothing"]
        raise DeployError(f"the container does not become ready: {lines[-1]}")

    def predict(self, manifest: dict[str, Any]) -> int:
        """Predict every example, and check that it serves this bundle; returns the number of examples."""
        served = self._ask("/model")
        if served["digest"] != manifest["digest"]:
            raise DeployError(
                f"it serves bundle {served['version']}, and this clone has {manifest['version']} "
                f"of {manifest['name']}"
            )
        examples = [each["values"] for each in manifest["examples"]]
        answer = self._ask("/predict", {"instances": examples})
        predictions = answer["predictions"]
        if len(predictions) != len(examples) or not all(_is_right(each, manifest) for each in predictions):
            raise DeployError(f"{len(examples)} examples were answered with {predictions}")
        return len(predictions)

    def stop(self) -> int:
        """End it as Kubernetes does, and return its status."""
        self._call("stop", "-t", str(STOP_SECONDS), self.id)
        return int(self._call("inspect", "--format={{.State.ExitCode}}", self.id))

    def remove(self) -> None:
        subprocess.run([self.engine, "rm", "--force", self.id], capture_output=True, check=False)

    def _ask(self, path: str, body: object = None) -> Any:
        answer = self._client.request("GET" if body is None else "POST", path, json=body)
        if not answer.is_success:
            raise DeployError(f"{path} is answered with {answer.status_code}: {answer.text[:500]}")
        return answer.json()

    def _call(self, *arguments: str) -> str:
        return call([self.engine, *arguments]).strip()


def _is_right(prediction: dict[str, Any], manifest: dict[str, Any]) -> bool:
    """Whether it is a class of the model, or a value within its interval."""
    if manifest.get("value") is None:
        return prediction.get("label") in manifest["classes"]
    low, high = prediction["interval"]
    return bool(low <= prediction["value"] <= high)


def _read(file: Path, name: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DeployError(
            f"{file} cannot be read: `make image MODEL={name}` builds from the model's bundle"
        ) from None
    return document


if __name__ == "__main__":
    run(main)

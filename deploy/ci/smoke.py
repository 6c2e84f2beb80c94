"""Starts the image that was built last as a cluster would, and asks it what a client would.

Read-only root, no capabilities, no new privileges; every example of the bundle is predicted by the version that was
built; after SIGTERM it ends with 0. docker or podman runs it (buildah's images are podman's); IMAGE_RUN_ARGS are
given to it as they are, such as `--network=host`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from common.command import run
from common.ports import free_port
from deploy.errors import DeployError

RECORD = Path("build/image.json")
MANIFEST = Path("model/model.json")
START_SECONDS = 60
STOP_SECONDS = 30
"""More than the service waits and drains after SIGTERM."""


def main() -> None:
    argparse.ArgumentParser(prog="python -m deploy.ci.smoke", description=__doc__).parse_args()
    record, manifest = _read(RECORD), _read(MANIFEST)
    engine = "docker" if record["tool"] == "docker" else "podman"
    if shutil.which(engine) is None:
        raise DeployError(f"{engine} is not installed, and the image was built by {record['tool']}")
    container = Container(engine, record["reference"])
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
        self.port = free_port()
        extra = shlex.split(os.environ.get("IMAGE_RUN_ARGS", ""))
        publish = [] if "--network=host" in extra else [f"--publish=127.0.0.1:{self.port}:{self.port}"]
        hardened = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
        self.id = self._call(
            "run",
            "--detach",
            "--pull=never",
            *hardened,
            f"--env=ESPALIER_PORT={self.port}",
            *publish,
            *extra,
            image,
        )

    def wait(self) -> None:
        """Until it is ready.

        Raises:
            DeployError: it ends, or takes too long; with the last thing it said.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._call("inspect", "--format={{.State.Running}}", self.id) != "true":
                break
            try:
                self._ask("/health/ready")
            except OSError:
                time.sleep(0.2)
            else:
                return
        raise DeployError(f"the container does not become ready: {self._last_words()}")

    def predict(self, manifest: dict[str, Any]) -> int:
        """Predict every example, and see that this very bundle does it; how many there were."""
        served = self._ask("/model")
        if served["digest"] != manifest["digest"]:
            raise DeployError(f"it serves bundle {served['version']}, and model/ holds {manifest['version']}")
        examples = [each["values"] for each in manifest["examples"]]
        answer = self._ask("/predict", {"instances": examples})
        labels = [each["label"] for each in answer["predictions"]]
        if len(labels) != len(examples) or not set(labels) <= set(manifest["classes"]):
            raise DeployError(f"{len(examples)} examples were answered with {labels}")
        return len(labels)

    def stop(self) -> int:
        """End it as Kubernetes does; its status."""
        self._call("stop", "-t", str(STOP_SECONDS), self.id)
        return int(self._call("inspect", "--format={{.State.ExitCode}}", self.id))

    def remove(self) -> None:
        subprocess.run([self.engine, "rm", "--force", self.id], capture_output=True, check=False)

    def _ask(self, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if path == "/health/ready":
                raise
            said = error.read(500).decode(errors="replace")
            raise DeployError(f"{path} is answered with {error.code}: {said}") from None

    def _last_words(self) -> str:
        done = subprocess.run(
            [self.engine, "logs", self.id],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        lines = (done.stdout + done.stderr).strip().splitlines()
        return lines[-1] if lines else "it says nothing"

    def _call(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.engine, *arguments], capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise DeployError(f"{self.engine} {arguments[0]}: {said[-1] if said else 'no word'}")
        return done.stdout.strip()


def _read(file: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DeployError(
            f"{file} cannot be read: `make image` builds from model/ and writes {RECORD}"
        ) from None
    return document


if __name__ == "__main__":
    run(main)

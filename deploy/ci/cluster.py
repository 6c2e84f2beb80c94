"""Has a cluster reproduce a branch: the same folder comes back as from `deploy.ci.reproduce` on the runner itself.

The commit goes to the DVC remote, below `runs/`. A DaskJob in the cluster gets it, runs deploy.ci.cluster_run and puts the
result beside it. So the cluster needs no credentials for git, and the runner no memory for the data. The job is deleted at the
end, whatever happens; if this process is killed first, its deadline ends it, and a later run deletes it.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from common.git import git
from deploy.ci import patches, steps
from deploy.errors import DeployError
from deploy.inputs import training_image
from deploy.kubernetes import Kubernetes, KubernetesError
from deploy.yaml_loader import LOADER
from training.remote import command as remote
from training.remote.objects import Objects, RemoteError

JOB = Path("deploy/training/job/daskjob.yaml")
FOLDER = "runs"
"""In the DVC remote."""
SOURCE, RESULT = "source.bundle", "result.tar"
OUTPUTS, SUMMARY = "outputs.json", "summary.md"
"""In the result, beside what deploy.ci.reproduce writes."""
HEAD, BASE = "refs/espalier/head", "refs/espalier/base"
GROUP, KIND = "kubernetes.dask.org/v1", "daskjobs"
POLL_SECONDS = 5.0
TRIES = 12
"""Answers of the cluster that may fail one after another."""
START_SECONDS = 900.0
"""A node may have to start, and the image is large."""
STALE_SECONDS = 6 * 3600
"""Longer than a run may take: whoever created it is gone."""


def reproduce(folder: Path, base: str, arguments: Sequence[str]) -> None:
    """Fill the folder, write the outputs and the summary of the step, and bring results into the working tree.

    Args:
        folder: empty; for what deploy.ci.reproduce writes.
        base: what to compare with.
        arguments: of deploy.ci.reproduce, without base, engine and output.

    Raises:
        DeployError: the run does not start, or ends without a result.
        RemoteError: there is no DVC remote that both can reach.
    """
    document = described(training_image(steps.environment("REGISTRY"), Path()))
    name: str = document["metadata"]["name"]
    store = Store(name)
    kubernetes = Kubernetes(document["metadata"]["namespace"])
    _clean(kubernetes)
    pack(base, store)
    environment = {"RUN_FOLDER": store.url, "RUN_ARGUMENTS": json.dumps(["--base", BASE, *arguments])}
    passed = {key: os.environ[key] for key in ("AWS_REGION", "RUN_URL") if os.environ.get(key)}
    (container,) = document["spec"]["job"]["spec"]["containers"]
    container["env"] = [
        *container.get("env", ()),
        *({"name": key, "value": value} for key, value in (environment | passed | store.environment).items()),
    ]
    with _interruptible():
        try:
            kubernetes.create(GROUP, KIND, document)
            print(f"created DaskJob {name}: {container['image']}", flush=True)
            _wait(kubernetes, name)
        finally:
            _delete(kubernetes, name)
    unpack(store, folder)
    try:
        outputs = json.loads((folder / OUTPUTS).read_text(encoding="utf-8"))
        summary = (folder / SUMMARY).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DeployError(f"{store.url}/{RESULT} is no result of a run: {error}") from None
    _take_over(folder / "lock.patch")
    steps.summary(summary)
    steps.output(**outputs)


class Store:
    """A run's folder in the DVC remote.

    Attributes:
        url: of the folder.
        environment: what a pod needs to find the storage, beside credentials.
    """

    def __init__(self, name: str) -> None:
        self._objects = Objects()
        fs = self._objects.remote.fs
        if fs.protocol == "local":
            raise RemoteError("the DVC remote is a folder of this machine, which a cluster cannot reach")
        # Objects are in files/md5 of the remote.
        self._place = f"{str(self._objects.remote.path).removesuffix('/files/md5')}/{FOLDER}/{name}"
        self._fs = fs
        self.url: str = fs.unstrip_protocol(self._place)
        config = self._objects.repo.config
        endpoint = config["remote"][config["core"]["remote"]].get("endpointurl")
        self.environment = {"AWS_ENDPOINT_URL": endpoint} if endpoint else {}

    def put(self, file: Path, name: str) -> None:
        with _explained(f"does not take {self.url}/{name}"):
            self._fs.put_file(str(file), f"{self._place}/{name}")

    def get(self, name: str, file: Path) -> None:
        with _explained(f"does not give {self.url}/{name}"):
            self._fs.get_file(f"{self._place}/{name}", str(file))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Each kind of storage has exceptions of its own.
        raise RemoteError(f"the DVC remote {what}: {' '.join(str(error).split())}") from None


def described(reference: str) -> dict[str, Any]:
    """The DaskJob of this run."""
    text = JOB.read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.load(text, LOADER)  # noqa: S506 - a safe one
    name = f"run-{os.environ.get('GITHUB_RUN_ID') or 'local'}-{secrets.token_hex(4)}"
    document["metadata"]["name"] = name
    cluster = document["spec"]["cluster"]["spec"]
    cluster["scheduler"]["service"]["selector"]["dask.org/cluster-name"] = name
    for part in (document["spec"]["job"], cluster["scheduler"], cluster["worker"]):
        for container in part["spec"]["containers"]:
            container["image"] = reference
    return document


def _clean(kubernetes: Kubernetes) -> None:
    """Delete runs whose process was killed before it could."""
    for each in kubernetes.objects(GROUP, KIND):
        created = datetime.fromisoformat(each["metadata"]["creationTimestamp"])
        if (datetime.now(UTC) - created).total_seconds() > STALE_SECONDS:
            print(f"deleting DaskJob {each['metadata']['name']}, which was left", flush=True)
            _delete(kubernetes, each["metadata"]["name"])


def _delete(kubernetes: Kubernetes, name: str) -> None:
    """Delete a run. Where that fails, its deadline ends it, and the result and what went wrong before count more."""
    try:
        kubernetes.delete(GROUP, KIND, name)
    except KubernetesError as error:
        print(f"warning: DaskJob {name} is left for the next run to delete: {error}", flush=True)


def pack(base: str, store: Store) -> None:
    """Store the commit, its history, and the base's."""
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        raise DeployError(
            "this clone is shallow, and a review needs its history: check out with fetch-depth 0"
        )
    git("update-ref", HEAD, "HEAD")
    git("update-ref", BASE, f"{base}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="espalier-run-") as temporary:
        bundle = Path(temporary) / SOURCE
        git("bundle", "create", "--quiet", str(bundle), HEAD, BASE)
        store.put(bundle, SOURCE)


def _wait(kubernetes: Kubernetes, name: str) -> None:
    """Print the run's log until it succeeds.

    Raises:
        DeployError: it does not start, fails, or is gone.
    """
    pod, deadline, since = f"{name}-runner", time.monotonic() + START_SECONDS, None
    started = False
    while True:
        found = _pod(kubernetes, pod)
        phase = found["status"].get("phase") if found else None
        if found is None and started:
            raise DeployError(f"pod {pod} is gone, most likely with its node: run this again")
        if phase in ("Running", "Succeeded", "Failed"):
            started = True
            for line in kubernetes.log(pod, since=since):
                print(line, end="", flush=True)
            # The log goes on from here if only the connection has ended.
            since = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            found = _pod(kubernetes, pod) or found
            phase = found["status"]["phase"] if found else phase
        if phase == "Succeeded":
            return
        if phase == "Failed":
            raise DeployError(f"pod {pod} failed{_ended(found)}: its log is above")
        if not started and time.monotonic() > deadline:
            raise DeployError(
                f"pod {pod} has not started within {START_SECONDS / 60:.0f} minutes: {_waiting(found)}"
            )
        time.sleep(POLL_SECONDS)


def _pod(kubernetes: Kubernetes, name: str) -> dict[str, Any] | None:
    """The pod of a run, which may take hours: an answer that fails now and then does not end it."""
    for _ in range(TRIES - 1):
        try:
            return kubernetes.pod(name)
        except KubernetesError:
            time.sleep(POLL_SECONDS)
    return kubernetes.pod(name)


def _waiting(pod: dict[str, Any] | None) -> str:
    """Why a pod has not started."""
    if pod is None:
        return "nothing has made it, as the operator does: is the option cluster-training on?"
    for each in pod["status"].get("containerStatuses", ()):
        if reason := each.get("state", {}).get("waiting"):
            hint = ": has the workflow release built it?" if "Image" in reason["reason"] else ""
            return f"{reason['reason']}, {reason.get('message', each.get('image', ''))}{hint}"
    for each in pod["status"].get("conditions", ()):
        if each["status"] == "False" and each.get("message"):
            return str(each["message"])
    return f"it is {pod['status'].get('phase')}"


def _ended(pod: dict[str, Any] | None) -> str:
    for each in (pod or {}).get("status", {}).get("containerStatuses", ()):
        if ended := each.get("state", {}).get("terminated"):
            return f" ({ended.get('reason', 'Error')}, status {ended.get('exitCode')})"
    reason = (pod or {}).get("status", {}).get("reason")
    return f" ({reason})" if reason else ""


def unpack(store: Store, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="espalier-run-") as temporary:
        file = Path(temporary) / RESULT
        store.get(RESULT, file)
        try:
            with tarfile.open(file) as archive:
                archive.extractall(folder, filter="data")
        except tarfile.TarError as error:
            raise DeployError(f"{store.url}/{RESULT} is no result of a run: {error}") from None


def _take_over(patch: Path) -> None:
    """Have the working tree as the run left its own, except for data: later steps read reports and models."""
    changed = patches.apply(patch)
    present = git("ls-files", "-z", "--", *changed).split("\0")[:-1] if changed else []
    if present:
        git("checkout-index", "--force", "--", *present)
    for path in {*changed}.difference(present):
        Path(path).unlink(missing_ok=True)
    git("reset", "--quiet")
    kept = [each.path for each in Objects().outputs() if "data" not in Path(each.path).parts]
    remote.pull(kept, allow_missing=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have SIGTERM, which a cancelled step gets, end the block as Ctrl-C does."""

    def stop(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

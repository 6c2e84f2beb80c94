"""Asks the API of a Kubernetes cluster, as kubectl's configuration says where it is and who asks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from deploy.errors import DeployError
from deploy.programs import find

SECONDS = 30
_MISSING = "(NotFound)"


class KubernetesError(DeployError):
    """The cluster cannot be reached, or refuses."""


class Kubernetes:
    """The objects of a namespace. kubectl only carries requests, so nothing is discovered and few rights are needed.

    Raises:
        MissingProgramError: kubectl is not installed.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._kubectl = find("kubectl", "it is part of the runners of GitHub, and of `make setup`")

    def create(self, group: str, kind: str, document: dict[str, Any]) -> None:
        """Create an object of a custom kind, such as `daskjobs` of `kubernetes.dask.org/v1`."""
        self._call("create", self._custom(group, kind), "-f", "-", stdin=json.dumps(document))

    def objects(self, group: str, kind: str) -> list[dict[str, Any]]:
        """All objects of a custom kind."""
        return list(json.loads(self._call("get", self._custom(group, kind)))["items"])

    def get(self, group: str, kind: str, name: str) -> dict[str, Any] | None:
        """An object of a custom kind; None if it is not there."""
        return self._found(f"{self._custom(group, kind)}/{quote(name)}")

    def delete(self, group: str, kind: str, name: str) -> None:
        """Delete an object of a custom kind with what belongs to it; it may be gone already."""
        try:
            self._call("delete", f"{self._custom(group, kind)}/{quote(name)}")
        except KubernetesError as error:
            if _MISSING not in str(error):
                raise

    def pod(self, name: str) -> dict[str, Any] | None:
        """A pod; None if it is not there."""
        return self._found(f"{self._core()}/{quote(name)}")

    def log(self, pod: str, *, since: str | None = None) -> Iterator[str]:
        """Lines of a pod's log, as they come, until it ends or the connection does.

        Args:
            pod: its name.
            since: a time in RFC 3339, after which lines are wanted.
        """
        query = urlencode({"follow": "true", **({"sinceTime": since} if since else {})})
        with subprocess.Popen(
            [self._kubectl, "get", "--raw", f"{self._core()}/{quote(pod)}/log?{query}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None  # noqa: S101 - asked for above
            try:
                yield from process.stdout
            finally:
                process.kill()

    def _core(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/pods"

    def _custom(self, group: str, kind: str) -> str:
        return f"/apis/{group}/namespaces/{self._namespace}/{kind}"

    def _found(self, path: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = json.loads(self._call("get", path))
        except KubernetesError as error:
            if _MISSING in str(error):
                return None
            raise
        return answer

    def _call(self, verb: str, path: str, *options: str, stdin: str | None = None) -> str:
        command = [self._kubectl, f"--request-timeout={SECONDS}s", verb, "--raw", path, *options]
        done = subprocess.run(
            command, input=stdin, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it printed no reason"]
            raise KubernetesError(f"the cluster does not {verb} {path}: {said[-1]}")
        return done.stdout

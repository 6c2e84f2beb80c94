"""Google Cloud Storage and Azure Blob Storage, played by fake-gcs-server and Azurite, each with a bucket `espalier`."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.tools import free_port, require, require_built, require_group

AZURITE = "azurite@3.35.0"
# Azurite's own, which everybody knows.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SECONDS = 120


@dataclass(frozen=True)
class Cloud:
    """A remote's scheme and settings; what follows the scheme is a bucket and a prefix."""

    scheme: str
    settings: Mapping[str, str]

    def point(self, clone: Path, place: str) -> None:
        lines = [f"    {name} = {value!r}" for name, value in self.settings.items()]
        (clone / ".dvc/config").write_text(
            "[core]\n    no_scm = true\n    remote = storage\n"
            f"['remote \"storage\"']\n    url = {self.scheme}://{place}\n" + "\n".join(lines) + "\n"
        )


@contextmanager
def server(command: list[str], folder: Path, url: str) -> Iterator[None]:
    """A server that has started once it gives any answer at all."""
    environment = {**os.environ, "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(SECONDS)


@contextmanager
def google(folder: Path) -> Iterator[Cloud]:
    require_group("dvc-gs", "--group gs")
    program, port = require_built("fake-gcs-server", "`.ci/build FOLDER` builds it"), free_port()
    url = f"http://127.0.0.1:{port}"
    options = [
        "-scheme=http",
        "-host=127.0.0.1",
        f"-port={port}",
        "-backend=memory",
        f"-public-host=127.0.0.1:{port}",
    ]
    with server([program, *options], folder, f"{url}/storage/v1/b"):
        bucket = urllib.request.Request(
            f"{url}/storage/v1/b?project=p", b'{"name": "espalier"}', {"content-type": "application/json"}
        )
        urllib.request.urlopen(bucket, timeout=SECONDS).close()
        yield Cloud("gs", {"endpointurl": url, "allow_anonymous_login": "true"})


@contextmanager
def azure(folder: Path) -> Iterator[Cloud]:
    require_group("dvc-azure", "--group azure")
    from azure.storage.blob import BlobServiceClient

    npm, port = require("npm"), free_port()
    subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", AZURITE], cwd=folder, check=True)
    address = f"http://127.0.0.1:{port}/devstoreaccount1"
    options = [
        "--silent",
        "--skipApiVersionCheck",
        "--inMemoryPersistence",
        f"--blobPort={port}",
        "--disableTelemetry",
    ]
    program = str(folder / "node_modules/azurite/dist/src/blob/main.js")
    with server([require("node"), program, *options], folder, address):
        connection = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={KEY};BlobEndpoint={address};"
        BlobServiceClient.from_connection_string(connection).create_container("espalier")
        yield Cloud("azure", {"connection_string": connection})

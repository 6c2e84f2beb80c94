"""Writes what compose.yaml needs beside its configuration: the name of the service's image, and passwords for `--profile mlflow`."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from common import files
from common.errors import EspalierError

ENVIRONMENT = Path(".env")
SECRETS = Path(".compose")
"""Outside of build/, because `make clean` keeps the volumes that were made with these passwords."""
KEY = "mlflow"
"""The access key of MLflow at the S3 server, and the section in which its client looks for it."""


def set_image(image: str, file: Path = ENVIRONMENT) -> None:
    """Put IMAGE into the file that compose reads; other lines stay as they are.

    Raises:
        EspalierError: it is no name of an image.
    """
    if not re.fullmatch(r"[\w./:@-]+", image):
        raise EspalierError(
            f"{image!r} is no name of an image: REGISTRY/NAME@sha256:… or NAME:TAG is expected"
        )
    before = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    kept = [line for line in before if not re.match(r"\s*(export\s+)?IMAGE\s*=", line)]
    files.write_text(file, "\n".join([*kept, f"IMAGE={image}"]) + "\n")


def write_secrets(folder: Path = SECRETS) -> list[Path]:
    """Make the passwords that are not there yet; returns the new files.

    Containers run as several users, so each file may be read by all, and only its owner can enter the folder.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    made = []
    contents: dict[str, Callable[[], str]] = {
        "postgres-password": lambda: secrets.token_urlsafe(32),
        # Two files with one key: what the server admits, and what MLflow's client sends.
        "storage.json": lambda: json.dumps(_identities(secrets.token_urlsafe(32)), indent=2) + "\n",
        "storage-credentials": lambda: _credentials(folder / "storage.json"),
    }
    for name, content in contents.items():
        file = folder / name
        if not file.exists():
            files.write_text(file, content())
            file.chmod(0o444)
            made.append(file)
    return made


def _identities(secret: str) -> dict[str, object]:
    credentials = [{"accessKey": KEY, "secretKey": secret}]
    return {"identities": [{"name": KEY, "credentials": credentials, "actions": ["Admin"]}]}


def _credentials(server: Path) -> str:
    try:
        (identity,) = json.loads(server.read_text(encoding="utf-8"))["identities"]
        (pair,) = identity["credentials"]
        return f"[default]\naws_access_key_id = {pair['accessKey']}\naws_secret_access_key = {pair['secretKey']}\n"
    except (ValueError, KeyError, TypeError):
        raise EspalierError(
            f"{server} is not what `make compose` writes: remove {server.parent} and the volumes of the former passwords"
        ) from None

"""Reads objects of S3, Google Cloud Storage and Azure, with the credentials that the cloud's own tools would use."""

from __future__ import annotations

import io
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from training.base.errors import ConfigError, DataError
from training.fetch.stream import ahead

if TYPE_CHECKING:
    from obstore.store import ObjectStore, S3Store

SCHEMES = {"s3": "S3", "gs": "Google Cloud Storage", "az": "Azure", "abfs": "Azure", "abfss": "Azure"}
CONNECT_SECONDS = 5
READ_SECONDS = 60
RETRIES = 3
BLOCK_BYTES = 1 << 24
"""Of an object that are requested at once. One block is read while another is used."""

_REMEDIES = {
    "S3": (
        "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; AWS_SKIP_SIGNATURE=true reads a public bucket",
        "AWS_ENDPOINT_URL",
        "s3:GetObject (and s3:ListBucket for several files)",
    ),
    "Google Cloud Storage": (
        "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run `gcloud auth application-default login`; "
        "GOOGLE_SKIP_SIGNATURE=true reads a public bucket",
        "the credentials",
        "storage.objects.get (and storage.objects.list for several files)",
    ),
    "Azure": (
        "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY; "
        "AZURE_SKIP_SIGNATURE=true reads a public container",
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ENDPOINT",
        "the role Storage Blob Data Reader",
    ),
}
"""By service: how to get credentials, what says where it is, and the right to read."""


@dataclass(frozen=True)
class Found:
    """An object: its key, its size in bytes and the tag of its content."""

    key: str
    size: int
    tag: str | None


class Bucket:
    """The bucket or container of a source.

    Attributes:
        key: what follows its name in the source.

    Raises:
        ConfigError: the source names no object, or access is not configured.
    """

    def __init__(self, source: str) -> None:
        scheme, rest = source.split("://", 1)
        self._service = SCHEMES[scheme]
        self._source = source
        place, _, self.key = rest.partition("/")
        if not place or not self.key:
            raise ConfigError(f"data.source: {source!r} should read {scheme}://bucket/key.csv")
        self._root = f"{scheme}://{place}"
        self._name = place.partition("@")[0]
        self._where = ""
        with self._explained(self.key):
            self._store = self._open()

    def url(self, key: str) -> str:
        return f"{self._root}/{key}"

    def find(self, key: str) -> Found | None:
        """An object by its key; None if there is none."""
        from obstore import head

        with self._explained(key):
            try:
                meta = head(self._store, key)
            except FileNotFoundError:
                # The answer to HEAD has no body that tells a missing object from a missing bucket.
                return None
            return Found(key, meta["size"], meta["e_tag"])

    def listed(self, folder: str) -> list[Found]:
        """The objects below a folder, sorted by key."""
        from obstore import list as listed

        with self._explained(folder):
            found = [each for batch in listed(self._store, folder or None) for each in batch]
        return sorted(
            (Found(each["path"], each["size"], each["e_tag"]) for each in found), key=lambda each: each.key
        )

    def opener(self, found: Found) -> Callable[[], BinaryIO]:
        """What opens an object at its start."""
        return lambda: io.BufferedReader(_Reader(self._blocks(found)), buffer_size=1 << 20)

    def tail(self, found: Found, size: int) -> bytes:
        """The last bytes of an object."""
        return self._part(found, max(0, found.size - size), found.size)

    def missing(self, key: str) -> DataError:
        """What to say of an object that is not there."""
        from obstore import get

        with self._explained(key):
            try:
                get(self._store, key)
            except FileNotFoundError as error:
                return DataError(self._not_found(key, str(error)))
        return DataError(f"{self._source} has changed while it was read: run it again")

    def _blocks(self, found: Found) -> Iterator[bytes]:
        ends = range(0, found.size, BLOCK_BYTES)
        return ahead(self._part(found, start, min(start + BLOCK_BYTES, found.size)) for start in ends)

    def _part(self, found: Found, start: int, end: int) -> bytes:
        from obstore import get

        options: dict[str, Any] = {"range": (start, end)}
        if found.tag:
            options["if_match"] = found.tag
        with self._explained(found.key):
            return bytes(get(self._store, found.key, options=options).bytes())  # type: ignore[arg-type]

    def _open(self) -> ObjectStore:
        from obstore.store import AzureStore, GCSStore

        shared: dict[str, Any] = {
            "retry_config": {
                "max_retries": RETRIES,
                "retry_timeout": timedelta(seconds=2 * READ_SECONDS),
                "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=2)},
            },
            "client_options": {
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "timeout": timedelta(seconds=READ_SECONDS),
                # The configured endpoint decides whether the connection is encrypted.
                "allow_http": True,
            },
        }
        if self._service == "S3":
            store, self._where = _open_s3(self._name, self._source, shared)
            return store
        kind = GCSStore if self._service == "Google Cloud Storage" else AzureStore
        return kind.from_url(self._root, **shared)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn errors of the store into one line with a remedy."""
        from obstore.exceptions import (
            BaseError,
            PermissionDeniedError,
            PreconditionError,
            UnauthenticatedError,
        )

        credentials, place, right = _REMEDIES[self._service]
        try:
            yield
        except FileNotFoundError as error:
            raise DataError(self._not_found(key, str(error))) from None
        except PreconditionError:
            raise DataError(f"{self.url(key)} has changed while it was read: run it again") from None
        except (PermissionDeniedError, UnauthenticatedError):
            raise DataError(
                f"{self._service} denies reading {self.url(key)}: these credentials need {right} on it"
            ) from None
        except (BaseError, ValueError) as error:
            text = str(error)
            line = _first_line(text)
            if "<Code>NoSuchBucket" in text or "ContainerNotFound" in text:
                raise DataError(self._not_found(key, text)) from None
            if "PermanentRedirect" in text or "AuthorizationHeaderMalformed" in text:
                raise DataError(f"bucket {self._name!r} is in another region: set AWS_REGION") from None
            if _is_about_credentials(text):
                raise ConfigError(
                    f"no {self._service} credentials to read {self._source}: {credentials}"
                ) from None
            if "error sending request" in text or "timed out" in text or "timeout" in text.lower():
                where = self._where or re.search(r"https?://[^/\s]+", line)
                shown = where if isinstance(where, str) else where[0] if where else "its address"
                raise DataError(
                    f"cannot reach {self._service} at {shown} to read {self.url(key)}: check {place} and the network"
                ) from None
            raise DataError(f"{self._service} refuses {self.url(key)}: {line}") from None

    def _not_found(self, key: str, text: str) -> str:
        place = _REMEDIES[self._service][1]
        if "<Code>NoSuchBucket" in text or "ContainerNotFound" in text:
            return f"there is no bucket {self._name!r} for {self._source}: check the name, {place} and the account"
        return f"bucket {self._name!r} has no object {key!r}: check data.source"


class _Reader(io.RawIOBase):
    """Blocks as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not len(self._rest):
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        if not self.closed and hasattr(self._blocks, "close"):
            self._blocks.close()
        super().close()


def _open_s3(bucket: str, source: str, shared: dict[str, Any]) -> tuple[S3Store, str]:
    """The store and its endpoint. botocore finds profile, endpoint, region and credentials as the AWS tools do."""
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from obstore.store import S3Store

    try:
        session = botocore.session.get_session()
        client = session.create_client("s3", config=Config(connect_timeout=CONNECT_SECONDS))
        endpoint, region = client.meta.endpoint_url, session.get_config_variable("region")
        found = None if _is_true("AWS_SKIP_SIGNATURE") else session.get_credentials()
        keys = found and found.get_frozen_credentials()
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"cannot read {source}: {_first_line(str(error))}") from None
    if not keys and not _is_true("AWS_SKIP_SIGNATURE"):
        raise ConfigError(f"no AWS credentials to read {source}: {_REMEDIES['S3'][0]}")

    def current() -> dict[str, Any]:
        # They are refreshed before they expire.
        frozen: Any = found and found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(minutes=10),
        }

    access: dict[str, Any] = {"credential_provider": current} if keys else {"skip_signature": True}
    is_aws = bool(re.search(r"\.amazonaws\.com(\.cn)?(:\d+)?$", urlsplit(endpoint).netloc))
    if is_aws:
        access |= {
            "region": region or _region(bucket),
            # A certificate covers one name below the service's.
            "virtual_hosted_style_request": "." not in bucket,
        }
    else:
        # A self-hosted server rarely has a host name for each bucket.
        access |= {
            "region": region or "us-east-1",
            "endpoint": endpoint,
            "virtual_hosted_style_request": False,
        }
    return S3Store(bucket, **access, **shared), "" if is_aws else endpoint


def _region(bucket: str) -> str:
    """The region of a bucket, which S3 tells everybody."""
    request = urllib.request.Request(f"https://s3.amazonaws.com/{bucket}", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as response:  # noqa: S310
            headers = response.headers
    except urllib.error.HTTPError as error:
        headers = error.headers
    except OSError:
        return "us-east-1"
    return headers.get("x-amz-bucket-region") or "us-east-1"


def _is_about_credentials(text: str) -> bool:
    signs = ("metadata", "169.254.169.254", "Account must be specified", "OAuth", "token", "credential")
    return any(each in text for each in signs)


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true")


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0].strip() if lines else "it gives no reason"

"""Words of HTTP that several modules share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

JSON = "application/json"
BINARY = "application/octet-stream"

RequestHeaders = Mapping[bytes, bytes]
"""Names are in lower case, as ASGI has them; of a header that comes twice the last one counts."""

ResponseHeaders = tuple[tuple[bytes, bytes], ...]

JSON_HEADERS: ResponseHeaders = ((b"content-type", JSON.encode()),)


class Answer(NamedTuple):
    """What goes back to a client; the length is added when it is sent."""

    body: bytes
    status: int = 200
    headers: ResponseHeaders = JSON_HEADERS


def content_length(headers: RequestHeaders) -> int:
    """The announced length, 0 if there is none."""
    length = headers.get(b"content-length", b"")
    return int(length[:20]) if length.isdigit() else 0

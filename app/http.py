"""HTTP types and constants that several modules share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

JSON = "application/json"
BINARY = "application/octet-stream"

RequestHeaders = Mapping[bytes, bytes]
"""Names are in lower case, as in ASGI; of a repeated header the last one counts."""

NO_HEADERS: RequestHeaders = MappingProxyType({})

ResponseHeaders = tuple[tuple[bytes, bytes], ...]

JSON_HEADERS: ResponseHeaders = ((b"content-type", JSON.encode()),)

Answer = tuple[bytes, int, ResponseHeaders]
"""Body, status and headers of a response; its length is added when it is sent."""


def json_answer(body: bytes, status: int = 200) -> Answer:
    return body, status, JSON_HEADERS


def content_length(headers: RequestHeaders) -> int:
    """The announced length, 0 if there is none."""
    # The parser accepts more digits only as leading zeros.
    return _number(headers.get(b"content-length", b"")[-20:])


@lru_cache(maxsize=1024)
def _number(digits: bytes) -> int:
    return int(digits) if digits.isdigit() else 0

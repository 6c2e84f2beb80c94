"""Compressed bodies: how they are named, and how they are read within a limit."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable

from app.errors import RequestError
from app.http import RequestHeaders


def content_encoding(headers: RequestHeaders) -> bytes:
    """The compression of the body; empty if there is none."""
    encoding = headers.get(b"content-encoding", b"").lower()
    return b"" if encoding == b"identity" else encoding


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Decompress a body, at most to the limit.

    Raises:
        RequestError: 413 if it exceeds the limit; 422 if it is damaged.
    """
    try:
        plain = ENCODINGS[encoding](body, limit + 1)
    except (zlib.error, gzip.BadGzipFile, EOFError):
        message = f"the body is not complete and valid {encoding.decode()}"
        raise RequestError(422, "invalid_encoding", message, reason="media_type") from None
    if len(plain) > limit:
        raise too_large(limit)
    return plain


def _gunzip(body: bytes, most: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
        return file.read(most)


def _inflate(body: bytes, most: int) -> bytes:
    """The zlib format, which HTTP prescribes, or raw deflate, which some clients send."""
    for window in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        inflater = zlib.decompressobj(window)
        try:
            plain = inflater.decompress(body, most)
        except zlib.error:
            continue
        if len(plain) == most or (inflater.eof and not inflater.unused_data):
            return plain
    raise zlib.error


ENCODINGS: dict[bytes, Callable[[bytes, int], bytes]] = {
    b"gzip": _gunzip,
    b"x-gzip": _gunzip,
    b"deflate": _inflate,
}


def too_large(limit: int) -> RequestError:
    return RequestError(
        413, "too_large", f"the body is larger than {limit} bytes: send fewer rows", reason="too_large"
    )

"""A container of Azure Blob Storage to read from: what the service answers, and no check of signatures.

A list has entity tags without quotes, and the header of an object has them with quotes, as the service does it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.tools import http_server

DATE = "Fri, 01 May 2026 12:00:00 GMT"
NAME = "data"


@contextmanager
def container(blobs: Mapping[str, bytes]) -> Iterator[dict[str, str]]:
    """Serve blobs as the container `data`; gives the environment by which it is reached."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            query = parse_qs(address.query)
            if query.get("comp") == ["list"]:
                self._answer(200, _listed(blobs, query.get("prefix", [""])[0]), {})
                return
            content = blobs.get(unquote(address.path).removeprefix(f"/account/{NAME}/"))
            if content is None:
                self._answer(404, b"<Error><Code>BlobNotFound</Code></Error>", {})
                return
            headers = {"ETag": f'"{_tag(content)}"', "Last-Modified": DATE, "x-ms-blob-type": "BlockBlob"}
            wanted = re.fullmatch(
                r"bytes=(\d+)-(\d*)", self.headers.get("x-ms-range") or self.headers.get("Range") or ""
            )
            if self.headers.get("If-Match", _tag(content)).strip('"') != _tag(content):
                self._answer(412, b"<Error><Code>ConditionNotMet</Code></Error>", {})
            elif wanted is None:
                self._answer(200, content, headers)
            else:
                start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
                part = content[start : end + 1]
                place = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
                self._answer(206, part, headers | {"Content-Range": place})

        def _answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http_server(Handler) as address:
        yield {
            "AZURE_STORAGE_ACCOUNT_NAME": "account",
            "AZURE_STORAGE_ACCOUNT_KEY": "a2V5",
            "AZURE_STORAGE_ENDPOINT": f"{address}/account",
        }


def _tag(content: bytes) -> str:
    return f"0x{hashlib.sha256(content).hexdigest()[:15].upper()}"


def _listed(blobs: Mapping[str, bytes], prefix: str) -> bytes:
    found = "".join(
        f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{DATE}</Last-Modified>"
        f"<Etag>{_tag(content)}</Etag><Content-Length>{len(content)}</Content-Length>"
        "<Content-Type>application/octet-stream</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>"
        for name, content in sorted(blobs.items())
        if name.startswith(prefix)
    )
    return f"<EnumerationResults><Blobs>{found}</Blobs><NextMarker/></EnumerationResults>".encode()

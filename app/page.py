"""Serves the pages for people: `page.html`, and Swagger UI at `/docs`, with policies that allow nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files
from pathlib import Path

_FILE = Path(__file__).with_name("page.html")
_INLINE = re.compile(rb"<(script|style)\b[^>]*>(.*?)</\1>", re.DOTALL | re.IGNORECASE)

DOCUMENTATION_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")
# Every address is relative, so that the page works under any prefix.
_DOCUMENTATION = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({{ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null }});
</script>
</body>
</html>
"""


def read_page() -> tuple[bytes, dict[str, str]]:
    """The page and the headers to send with it."""
    page = _FILE.read_bytes()
    return page, _headers(page)


def documentation_page(title: str) -> tuple[bytes, dict[str, str]]:
    """The page at `/docs` and the headers to send with it."""
    page = _DOCUMENTATION.format(title=html.escape(title)).encode()
    return page, _headers(page, own_files=" 'self'")


def documentation_file(name: str) -> Path:
    """One of `DOCUMENTATION_FILES`."""
    return Path(str(files("fastapi_swagger") / "resources" / name))


def _headers(page: bytes, own_files: str = "") -> dict[str, str]:
    return {
        "Content-Security-Policy": _policy(page, own_files),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # A new release brings a new page; the browser asks each time.
        "Cache-Control": "no-cache",
    }


def _policy(page: bytes, own_files: str) -> str:
    """A Content-Security-Policy that names the page's own scripts and styles by their hashes."""
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for tag, content in _INLINE.findall(page):
        if not content:
            continue  # It is a file.
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        hashes[tag.lower()].append(f"'sha256-{digest}'")
    allowed = {kind: (" ".join(found) + own_files).strip() or "'none'" for kind, found in hashes.items()}
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {allowed[b'script']}",
            f"style-src {allowed[b'style']}",
            "connect-src 'self'",
            "img-src 'self' data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )

"""The pages for people: `page.html`, and Swagger UI at `/docs`. Their policies allow nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files
from pathlib import Path

from fastapi.openapi.docs import get_swagger_ui_html

_FILE = Path(__file__).with_name("page.html")
_INLINE = re.compile(rb"<(script|style)\b[^>]*>(.*?)</\1>", re.DOTALL | re.IGNORECASE)

DOCUMENTATION_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")


def read_page() -> tuple[bytes, dict[str, str]]:
    """The page and the headers to send with it."""
    page = _FILE.read_bytes()
    return page, _headers(page)


def documentation_page(title: str) -> tuple[bytes, dict[str, str]]:
    """The page at `/docs` and the headers to send with it."""
    # Every address is relative, so that the page works under any prefix.
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=html.escape(title),
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="data:,",
        swagger_ui_parameters={
            "validatorUrl": None,
            "showExtensions": False,
            "showCommonExtensions": False,
        },
    ).body
    # Screen readers need the language.
    content = bytes(page).replace(b"<html>", b'<html lang="en">')
    return content, _headers(content, own_files=" 'self'")


def documentation_file(name: str) -> Path:
    """One of `DOCUMENTATION_FILES`."""
    return Path(str(files("fastapi_swagger") / "resources" / name))


def _headers(page: bytes, own_files: str = "") -> dict[str, str]:
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": _policy(page, own_files),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # A new release has a new page, so the browser asks each time.
        "Cache-Control": "no-cache",
    }


def _policy(page: bytes, own_files: str) -> str:
    """A Content-Security-Policy that allows the page's own scripts and styles by their hashes."""
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for tag, content in _INLINE.findall(page):
        if content:  # Otherwise it is a file.
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

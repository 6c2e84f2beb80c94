"""Serves `page.html` with a policy that allows only what is written in it."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

_FILE = Path(__file__).with_name("page.html")
_INLINE = re.compile(rb"<(script|style)\b[^>]*>(.*?)</\1>", re.DOTALL | re.IGNORECASE)


def read_page() -> tuple[bytes, dict[str, str]]:
    """The page and the headers to send with it."""
    page = _FILE.read_bytes()
    return page, {
        "Content-Security-Policy": _policy(page),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # A new release brings a new page; the browser asks each time.
        "Cache-Control": "no-cache",
    }


def _policy(page: bytes) -> str:
    """A Content-Security-Policy that names the page's own scripts and styles by their hashes."""
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for tag, content in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        hashes[tag.lower()].append(f"'sha256-{digest}'")
    allowed = {kind: " ".join(found) or "'none'" for kind, found in hashes.items()}
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

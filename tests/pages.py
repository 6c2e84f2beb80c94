"""Markdown pages as GitHub shows them."""

from __future__ import annotations

import re
from collections import Counter


def anchors(markdown: str) -> set[str]:
    """Of the headings: lower case, without punctuation, with hyphens for spaces, numbered when one comes again."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", re.sub(r"(?ms)^```.*?^```", "", markdown), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found

"""Puts values that somebody else wrote into GitHub's Markdown, so that they are shown and do nothing.

A class name or a parameter in a pull request may hold pipes that break a table, HTML, links, or an @mention that
would call people. Whatever it holds, it is shown as it is, and characters that nobody sees are spelt out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

LONGEST_VALUE = 120
"""Characters of one value; the rest is cut."""

_SPECIAL = re.compile(r"[!-/:-@\[-`{-~]")
"""ASCII punctuation: all that Markdown can give a meaning to."""
_RISKY_IN_PROSE = re.compile(
    r"[\\`*\[\]<>#|~&@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|://|(?<=www)\.|^[-+=]|^\d+[.)]", re.IGNORECASE
)
_MENTIONS = ("@", "#")
_ZERO_WIDTH_SPACE = "&#8203;"


def code(value: object, longest: int = LONGEST_VALUE) -> str:
    """A value in the fixed-width font, in one line, also within a table."""
    text = visible(str(value), longest)
    if not text.strip():
        return "(empty)"
    if not any(each in text for each in "`|\\"):
        # A code span drops one space on each side if there is one on both.
        return f"` {text} `" if text[0] == text[-1] == " " else f"`{text}`"
    # No escape works in a code span in a table. As an entity, no character has a meaning anywhere.
    return f"<code>{_SPECIAL.sub(_entity, text)}</code>"


def prose(text: str, longest: int = 2000) -> str:
    """Running text in which nothing is a link, a mention, HTML or emphasis, in one line, also within a table."""

    def harmless(match: re.Match[str]) -> str:
        found = "".join(f"&#{ord(each)};" for each in match.group())
        # GitHub looks for mentions in what was rendered, where an entity is a character again.
        return found + _ZERO_WIDTH_SPACE if match.group() in _MENTIONS else found

    return _RISKY_IN_PROSE.sub(harmless, visible(text, longest))


def block(text: str, longest: int = 4000) -> str:
    """Text of several lines as it is; no run of backticks in it ends the block."""
    lines = [visible(line, longest) for line in text.strip()[:longest].splitlines()]
    fence = "`" * (max((len(each) for line in lines for each in re.findall("`+", line)), default=2) + 1)
    fence = max(fence, "```", key=len)
    return "\n".join([f"{fence}text", *lines, fence])


def table(head: Sequence[str], rows: Iterable[Sequence[str]], budget: int, align: str = "") -> str:
    """A table of cells that are Markdown already, of as many rows as fit in `budget` bytes.

    Args:
        head: the columns' titles.
        rows: the cells.
        budget: in UTF-8; what does not fit is counted in a line below.
        align: "l" or "r" for each column; left where it ends.
    """
    marks = ["---:" if each == "r" else "---" for each in align.ljust(len(head), "l")]
    lines = [_row(head), _row(marks)]
    left = budget - size("\n".join(lines))
    dropped = 0
    for row in rows:
        line = _row(row)
        left -= size(line) + 1
        if dropped or left < 0:
            dropped += 1
        else:
            lines.append(line)
    if dropped:
        lines += ["", f"… and {dropped:,} more, in `review.json`."]
    return "\n".join(lines)


def details(summary: str, body: str) -> str:
    """A part that opens on a click; `summary` is Markdown-free HTML or plain text."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def visible(text: str, longest: int) -> str:
    """In one line, cut, and without characters that nobody sees or that turn the text around them."""
    cut = text[:longest] if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(_shown(each) for each in cut)


def size(text: str) -> int:
    """Bytes: GitHub's limit is one of characters, and this is never less."""
    return len(text.encode(errors="replace"))


def _shown(character: str) -> str:
    if character in "\t\n\r":
        return " "
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return f"(U+{ord(character):04X})"
    return character


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match.group())};"

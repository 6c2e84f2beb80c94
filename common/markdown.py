"""Escapes text of others for GitHub's Markdown: it is shown as it is and has no effect.

A class name, a parameter or a commit's subject may hold pipes that break a table, HTML, links, or an @mention that
notifies people. Invisible characters are spelt out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

LONGEST_VALUE = 120
"""Characters of one value; the rest is cut."""

_SPECIAL = re.compile(r"[!-/:-@\[-`{-~]")
"""ASCII punctuation: every character that can have a meaning in Markdown."""
_RISKY_IN_PROSE = re.compile(
    r"[\\`*\[\]<>#|~&@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|://|(?<=www)\.|^[-+=]|^\d+[.)](?=\s|\Z)",
    re.IGNORECASE,
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
    # No escape works in a code span in a table. As an entity, no character has a meaning for the parser; but an
    # address is looked for in what was parsed, as in running text.
    return f"<code>{_SPECIAL.sub(_entity, text)}</code>"


def prose(text: str, longest: int = 600, *, references: bool = False) -> str:
    """Running text in which nothing is a link, a mention, HTML or emphasis, in one line, also within a table.

    Args:
        text: of others.
        longest: characters; the rest is cut.
        references: whether #12 stays a link to an issue or a pull request.
    """

    def escape(match: re.Match[str]) -> str:
        return "#" if references and match.group() == "#" and match.start() else _entity(match)

    return _RISKY_IN_PROSE.sub(escape, visible(text, longest).strip())


def block(text: str, budget: int = 4000) -> str:
    """Text of several lines as it is, up to `budget` bytes; no run of backticks in it ends the block."""
    lines = list(_within(budget, (visible(line, 500) for line in text.strip().splitlines())))
    fence = "`" * (max((len(each) for line in lines for each in re.findall("`+", line)), default=2) + 1)
    fence = max(fence, "```", key=len)
    return "\n".join([f"{fence}text", *lines, fence])


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], budget: int | None = None, align: str = ""
) -> str:
    """A table of cells that are Markdown already, of as many rows as fit in `budget` bytes.

    Args:
        head: the columns' titles.
        rows: the cells.
        budget: in UTF-8; what does not fit is counted in a line below. None where everything fits.
        align: "l" or "r" for each column; left where it ends.
    """
    marks = ["---:" if each == "r" else "---" for each in align.ljust(len(head), "l")]
    top = [_row(head), _row(marks)]
    lines = [_row(row) for row in rows]
    kept = lines if budget is None else list(_within(budget - size("\n".join(top)), lines))
    return "\n".join([*top, *kept, *_rest(len(lines) - len(kept))])


def bullets(items: Iterable[str], budget: int) -> list[str]:
    """The lines of a list of Markdown, of as many items as fit in `budget` bytes."""
    # A dash alone below a line of text would make that line a heading.
    lines = [f"- {each}" for each in items if each.strip()]
    kept = list(_within(budget, lines))
    return [*kept, *_rest(len(lines) - len(kept))]


def details(summary: str, body: str) -> str:
    """A section that opens on a click; `summary` is HTML or plain text, not Markdown."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def visible(text: str, longest: int) -> str:
    """In one line, cut, with invisible characters and those that reverse text spelt out."""
    cut = text[:longest] if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(_shown(each) for each in cut)


def size(text: str) -> int:
    """Bytes: GitHub's limit is one of characters, and this is never less."""
    return len(text.encode(errors="replace"))


def _within(budget: int, lines: Iterable[str]) -> Iterator[str]:
    """The first lines, as many as fit."""
    for line in lines:
        budget -= size(line) + 1
        if budget < 0:
            return
        yield line


def _rest(count: int) -> list[str]:
    return ["", f"… and {count:,} more, in `review.json`."] if count else []


def _shown(character: str) -> str:
    if character in "\t\n\r":
        return " "
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return f"(U+{ord(character):04X})"
    return character


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _entity(match: re.Match[str]) -> str:
    """A special character as an entity; an invisible space follows one that GitHub searches in the rendered text."""
    return "".join(f"&#{ord(each)};" for each in match.group()) + (
        _ZERO_WIDTH_SPACE if match.group() in _MENTIONS else ""
    )

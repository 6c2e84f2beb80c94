"""What others wrote, in Markdown as GitHub's own parser reads it: shown as it is, and without effect."""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser

import cmarkgfm  # type: ignore[import-untyped]
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common import markdown

HOSTILE = (
    "@torvalds",
    "#1",
    "a|b",
    "a\\|b",
    "\\",
    "\\\\|",
    "`x`",
    "``` x ```",
    "`",
    "``|`",
    "<img src=x onerror=alert(1)>",
    "<!-- espalier-review -->",
    "</details>",
    "</code><a href=x>",
    "[x](https://evil.example)",
    "![x](https://evil.example/pixel.png)",
    "https://evil.example",
    "www.evil.example",
    "a@evil.example",
    "mailto:a@evil.example",
    "a@evil.example | `",
    "www.evil.example | https://evil.example",
    "**bold** _it_ ~~gone~~",
    "# head",
    "- item",
    "1. item",
    "> quote",
    "&#64;user &amp;",
    "*",
    "a\nb\n\n# c",
    "\u202egnp.exe",
    "\u200b",
    "\x00\x1b[31m",
    "$$x$$",
    ":tada:",
    "  ",
    " a ",
    "é — 漢字 🎉",
)
anything = (
    st.text(max_size=200) | st.text("|`\\<>@#[]()!*_~&;:/.aw \n-+1", max_size=60) | st.sampled_from(HOSTILE)
)


class Page(HTMLParser):
    """The tags of a page in order, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.ended: list[str] = []
        self.text = ""
        self.cells: list[str] = []
        self.source = cmarkgfm.github_flavored_markdown_to_html(
            source, cmarkgfm.cmark.Options.CMARK_OPT_UNSAFE
        )
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.ended.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cells:
            self.cells[-1] += data

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")


def shown(text: str, longest: int = markdown.LONGEST_VALUE) -> str:
    return markdown.visible(text, longest)


def squeezed(text: str) -> str:
    """Without the spaces that HTML does not show, and the invisible one that breaks mentions."""
    return " ".join(text.replace("\u200b", "").split())


@given(anything)
@example("a|b")
@example("\\|")
def test_a_value_in_a_table_is_one_cell_of_code(value: str) -> None:
    page = Page(markdown.table(["a", "b"], [[markdown.code(value), "after"]], 10_000))
    assert page.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", *_code(value), "td"]
    cell = page.cells[2].strip()
    assert squeezed(cell) == (squeezed(shown(value)) or "(empty)")
    assert page.cells[3].strip() == "after"


@given(anything)
def test_a_value_in_a_line_is_code(value: str) -> None:
    page = Page(f"before {markdown.code(value)} after")
    assert page.tags == ["p", *_code(value)]
    assert squeezed(page.text) == squeezed(
        f"before {shown(value) if shown(value).strip() else '(empty)'} after"
    )


def _code(value: str) -> list[str]:
    return ["code"] if shown(value).strip() else []


@given(anything)
@example("1) x")
@example(" - x")
@example("     x")
@example("+ x")
@example("=")
def test_prose_is_a_paragraph_of_text(value: str) -> None:
    page = Page(markdown.prose(value))
    assert page.tags in (["p"], [])
    assert squeezed(page.text) == squeezed(shown(value, 600))


@given(anything)
def test_prose_in_a_table_stays_in_its_cell(value: str) -> None:
    page = Page(markdown.table(["a", "b"], [[markdown.prose(value), "after"]], 10_000))
    assert page.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    assert page.cells[3].strip() == "after"


@given(anything)
def test_nobody_is_mentioned_outside_of_code(value: str) -> None:
    """GitHub looks for mentions and issues in the text that was rendered."""
    assert not re.search(r"@[A-Za-z0-9]|#\d", Page(markdown.prose(value)).text.replace("\n", " "))


@given(st.lists(anything, max_size=5))
@example(["```", "# x"])
@example(["`````", "~~~", "</code>"])
def test_nothing_ends_a_block(lines: list[str]) -> None:
    page = Page(markdown.block("\n".join(lines)) + "\n\nafter")
    assert page.tags == ["pre", "code", "p"]
    assert page.text.endswith("after\n")


@given(anything)
def test_what_nobody_sees_is_spelt_out(value: str) -> None:
    for each in (markdown.code(value), markdown.prose(value)):
        assert not {unicodedata.category(character) for character in each} & {"Cc", "Cf", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize("value", HOSTILE)
def test_no_link_and_no_picture(value: str) -> None:
    for text in (markdown.code(value), markdown.prose(value)):
        assert not {"a", "img", "script", "h1", "em", "strong", "comment"} & set(Page(text).tags)


def test_ordinary_values_stay_readable() -> None:
    assert markdown.code("train.algorithms.svm.C") == "`train.algorithms.svm.C`"
    assert (
        markdown.prose("test f1_macro is 0.05 lower (svm, -3%)") == "test f1_macro is 0.05 lower (svm, -3%)"
    )


def test_long_values_are_cut() -> None:
    assert markdown.code("x" * 500) == f"`{'x' * 119}…`"


@given(st.integers(0, 60), st.integers(200, 3000))
def test_a_table_keeps_to_its_budget_and_counts_the_rest(rows: int, budget: int) -> None:
    text = markdown.table(["a"], [["é" * 20]] * rows, budget)
    assert markdown.size(text) <= budget + 60
    kept = text.count("é" * 20)
    if kept < rows:
        assert f"… and {rows - kept} more" in text


def test_a_reference_stays_a_link_where_it_may() -> None:
    assert markdown.prose("Fix #12 for @ann", references=True) == "Fix #12 for &#64;&#8203;ann"
    assert markdown.prose("# head", references=True).startswith("&#35;")

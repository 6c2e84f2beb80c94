"""Reads YAML with Python's own library, which is all that the exporter's image has.

Block and flow style, plain and quoted scalars, comments and anchors; of a block scalar, its lines as they stand. The
rest (tags, merge keys, escapes that JSON does not know, several documents) is refused and never misread; a test compares
with PyYAML. As in the release tool, every scalar is text, and a key that is given twice is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

Value: TypeAlias = "str | list[Value] | dict[str, Value] | None"

_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]|^(?:---|\\.\\.\\.)(?=[ \n]|\\Z)", re.MULTILINE)
_START = re.compile(r"\A((?: *(?:#[^\n]*)?\n)*)---(?=[ \n]|\Z)")
_FOLD = re.compile(r"[ \t]*\n[ \t\n]*")
_TOKENS = r"""
    (?P<skip>[ \n]+|[ \t]+(?=[#\n]|\Z)|(?<!\S)\#[^\n]*)
    |(?P<item>-(?=[ \n]|\Z))
    |(?P<colon>:(?=END|\Z)FLOW_COLON)
    |(?P<single>'(?:[^']|'')*')
    |(?P<double>"(?:[^"\\]|\\.)*")
    |(?P<block>[|>][+-]?[ \t]*(?:\n|\Z))
    |(?P<anchor>[&*][^\s,\[\]{}]+)
    |(?P<mark>[\[\]{},])
    |(?P<plain>(?![-?:](?:END|\Z)|[?:]FLOW|[\#&*!|>'"%@`<])(?:[^\s:\#STOP]|:(?!END|\Z)|(?<=\S)\#|[ ]+(?![\s\#]|:(?:END|\Z)|\Z))+)
"""


def _pattern(**parts: str) -> re.Pattern[str]:
    text = _TOKENS
    for name, part in parts.items():
        text = text.replace(name, part)
    return re.compile(text, re.VERBOSE | re.DOTALL)


_BLOCK = _pattern(FLOW_COLON="", FLOW=r"(?!)", END=r"\s", STOP="")
_FLOW = _pattern(FLOW_COLON=r"|(?<=[\"']):", FLOW="", END=r"[\s,\[\]{}]", STOP=r",\[\]{}")


class _Token(NamedTuple):
    kind: str
    text: str
    line: int
    column: int


def load(text: str) -> Value:
    """The document, with every scalar as text.

    Raises:
        ValueError: it is not YAML, or more of it than is read here.
    """
    text = _START.sub(r"\1   ", re.sub(r"\r\n?", "\n", text.removeprefix("\ufeff")))
    if _ODD.search(text):
        raise ValueError("it has several documents, control characters or line ends that only YAML knows")
    reader = _Reader([*_tokens(text), _Token("end", "", text.count("\n") + 1, -1)])
    value = reader.block(-1)
    reader.take("end")
    return value


def _tokens(text: str) -> Iterator[_Token]:
    at = depth = parent = 0
    while at < len(text):
        found, line = (_FLOW if depth else _BLOCK).match(text, at), text.count("\n", 0, at) + 1
        if not found:
            raise ValueError(f"line {line}: {text[at : at + 20]!r} is not read here")
        kind, said, column = str(found.lastgroup), found[0], at - text.rfind("\n", 0, at) - 1
        at = found.end()
        if kind == "mark":
            kind, depth = said, max(0, depth + (said in "[{") - (said in "]}"))
        elif kind in ("single", "double"):
            said = _FOLD.sub(_folded, said)
            said = said[1:-1].replace("''", "'") if kind == "single" else _unescaped(said, line)
            kind = "plain"
        elif kind == "block":
            body = re.compile(rf"(?: *\n| {{{parent + 1},}}[^\n]*(?:\n|\Z))*").match(text, at)
            said, at = (body[0], body.end()) if body else ("", at)
        elif kind == "plain":
            rest, at = _continued(text, at, -1 if depth else parent, _FLOW if depth else _BLOCK)
            said += rest
        if kind in ("plain", "item"):
            parent = column
        if kind != "skip":
            yield _Token(kind, said, line, column)


def _continued(text: str, at: int, parent: int, pattern: re.Pattern[str]) -> tuple[str, int]:
    """The further lines of a plain scalar, all to the right of its parent, and where they end."""
    said = ""
    while gap := _FOLD.match(text, at):
        line = pattern.match(text, gap.end())
        if not line or line.lastgroup != "plain" or gap.end() - text.rfind("\n", 0, gap.end()) - 1 <= parent:
            break
        following = pattern.match(text, line.end())
        if "\t" in gap[0] or (following and following.lastgroup == "colon"):
            break
        said, at = said + _folded(gap) + line[0], line.end()
    return said, at


def _unescaped(quoted: str, line: int) -> str:
    if "\\\n" in quoted:
        raise ValueError(f"line {line}: an escaped line end is not read here")
    known = re.sub(r"\\(\\|x)", lambda found: r"\u00" if found[1] == "x" else found[0], quoted)
    return str(json.loads(known.replace("\n", r"\n")))


def _folded(gap: re.Match[str]) -> str:
    """A line end is a blank, and n empty lines are n line ends."""
    return "\n" * (gap[0].count("\n") - 1) or " "


class _Reader:
    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.anchors: dict[str, Value] = {}

    def take(self, *kinds: str) -> _Token:
        token = self.tokens[0]
        if token.kind not in kinds:
            raise ValueError(f"line {token.line}: {token.text!r} where {kinds[0]} was expected")
        return self.tokens.pop(0)

    def block(self, parent: int, line: int = 0) -> Value:
        """What stands to the right of the parent's column; only a scalar or flow beside a key, which is in `line`."""
        token = self.tokens[0]
        if token.column <= parent:
            return None
        if token.kind == "anchor":
            return self._anchored(lambda: self.block(parent, token.line))
        if self._is_key() and token.line != line:
            return self._mapping(token.column)
        if token.kind == "item" and token.line != line:
            return self._list(token.column)
        return self._flow() if token.kind in "[{" else self.take("plain", "block").text

    def _is_key(self) -> bool:
        first, second = [*self.tokens[:2], self.tokens[-1]][:2]
        return (first.kind, second.kind, second.line) == ("plain", "colon", first.line)

    def _mapping(self, column: int) -> Value:
        found: dict[str, Value] = {}
        while self._is_key() and self.tokens[0].column == column:
            key, following = self.take("plain"), self.tokens[1]
            self.take("colon")
            beneath = following.kind == "item" and following.column == column
            self._put(found, key, self._list(column) if beneath else self.block(column, key.line))
        return found

    def _list(self, column: int) -> Value:
        found: list[Value] = []
        while self.tokens[0].kind == "item" and self.tokens[0].column == column:
            self.take("item")
            found.append(self.block(column))
        return found

    def _flow(self) -> Value:
        if self.tokens[0].kind == "anchor":
            return self._anchored(self._flow)
        opening = self.take("plain", "[", "{")
        if opening.kind == "plain":
            return opening.text
        items, pairs, closing = list[Value](), dict[str, Value](), "]" if opening.kind == "[" else "}"
        while self.tokens[0].kind != closing:
            if closing == "]":
                items.append(self._flow())
            else:
                key, paired = self.take("plain"), self.tokens[0].kind == "colon" and self.take("colon")
                self._put(pairs, key, self._flow() if paired and self.tokens[0].kind not in ",}" else None)
            if self.tokens[0].kind != closing:
                self.take(",")
        self.take(closing)
        return items if closing == "]" else pairs

    def _anchored(self, read: Callable[[], Value]) -> Value:
        token = self.take("anchor")
        if token.text[0] == "&":
            self.anchors[token.text[1:]] = read()
        if token.text[1:] not in self.anchors:
            raise ValueError(f"line {token.line}: there is no anchor {token.text[1:]}")
        return self.anchors[token.text[1:]]

    def _put(self, found: dict[str, Value], key: _Token, value: Value) -> None:
        if key.text in found:
            raise ValueError(f"line {key.line}: {key.text} is given twice")
        found[key.text] = value

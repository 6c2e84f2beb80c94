"""Reads YAML with Python's own library, which is all that the exporter's image has.

Block and flow style, plain and quoted scalars, comments, anchors and block scalars. What is written otherwise (tags,
merge keys, several documents) is refused and never misread; a test compares the rest with PyYAML. As the release tool
does, it takes every scalar for text and refuses keys that are given twice.
"""

from __future__ import annotations

import re
from typing import NoReturn, TypeAlias

Value: TypeAlias = "str | list[Value] | dict[str, Value] | None"

_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")
_START = re.compile(r"(?m)^---(?=[ \n]|\Z)")
_BLANK = re.compile(r"(?:[ \n]|(?:(?<=[ \t\n])|\A)#[^\n]*|(?<=[^ \n])[ ]*\t+[ \t]*(?=[#\n]|\Z))*")
_NAME = re.compile(r"[^\s,\[\]{}]+")
_KEY_END = re.compile(r" *:(?=[ \n]|\Z)")
_FLOW_KEY_END = re.compile(r"[ \n]*:")
_PLAIN = re.compile(r"(?:[^\s:#]|:(?=[^\s])|(?<=\S)#|[ ]+(?=[^\s#:]|:\S))+")
_FLOW_PLAIN = re.compile(
    r"(?:[^\s:#,\[\]{}]|:(?=[^\s,\[\]{}])|(?<=\S)#|[ ]+(?=[^\s#:,\[\]{}]|:[^\s,\[\]{}]))+"
)
_SINGLE = re.compile(r"'((?:[^']|'')*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|\n[ \t]*|(.))", re.DOTALL)
_FOLD = re.compile(r"[ \t]*\n[ \t\n]*")
_ESCAPED = {
    "0": "\0", "a": "\a", "b": "\b", "t": "\t", "\t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "e": "\x1b",
    " ": " ", '"': '"', "/": "/", "\\": "\\", "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029",
}  # fmt: skip
_BLOCK = re.compile(r"([|>])([+-]?)([ \t]+#[^\n]*|[ \t]*)(?:\n|\Z)")


def load(text: str) -> Value:
    """The document, with every scalar as text.

    Raises:
        ValueError: it is not YAML, or more of it than is read here.
    """
    text = re.sub(r"\r\n?", "\n", text.removeprefix("\ufeff"))
    reader = _Reader(re.split(r"(?m)^\.\.\.(?=[ \n]|\Z)", text, maxsplit=1)[0])
    if _ODD.search(text):
        reader.fail("it has control characters or line ends that only YAML knows")
    reader.skip()
    if _START.match(reader.text, reader.at):
        reader.at += 3
    if _START.search(reader.text, reader.at):
        reader.fail("there is more than one document")
    value = reader.node(-1)
    reader.skip()
    if reader.at < len(reader.text):
        reader.fail("something is left")
    return value


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.anchors: dict[str, Value] = {}

    def fail(self, why: str) -> NoReturn:
        raise ValueError(f"line {self.text.count(chr(10), 0, self.at) + 1}: {why}")

    def skip(self) -> None:
        """Go to what comes after blanks, line ends and comments."""
        self.at = self._match(_BLANK).end()

    def column(self) -> int:
        return self.at - self.text.rfind("\n", 0, self.at) - 1

    def next(self, length: int = 1) -> str:
        return self.text[self.at : self.at + length]

    def node(self, parent: int, *, beside: bool = False) -> Value:
        """What stands here, further to the right than the parent; a list may begin right below its key (`beside`)."""
        start = self.text.count("\n", 0, self.at)
        self.skip()
        anchor = ""
        if self.next() == "&":
            self.at += 1
            anchor = self._take(_NAME, "an anchor needs a name")
            self.skip()
        same_line = self.text.count("\n", 0, self.at) == start and parent >= 0
        item = self._at_item()
        if self.at >= len(self.text) or self.column() < parent + 1 - (beside and item):
            value: Value = None
        else:
            value = self._content(parent, item=item, same_line=same_line and beside)
        if anchor:
            self.anchors[anchor] = value
        return value

    def _content(self, parent: int, *, item: bool, same_line: bool) -> Value:
        first = self.next()
        if item:
            if same_line:
                self.fail("a list cannot begin beside its key")
            return self._list()
        if first in "[{":
            return self._flow()
        if first == "*":
            return self._alias()
        if first in "|>":
            return self._block_scalar(parent)
        if not same_line and self._at_key():
            return self._mapping()
        if first in "\"'":
            return self._quoted()
        return self._plain_lines(parent)

    def _at_item(self) -> bool:
        return self.next() == "-" and self.next(2)[1:] in ("", " ", "\n")

    def _at_key(self) -> bool:
        before = self.at
        try:
            self._key()
        except ValueError:
            return False
        else:
            found = _KEY_END.match(self.text, self.at) is not None
            return found and "\n" not in self.text[before : self.at]
        finally:
            self.at = before

    def _key(self) -> str:
        if self.next() in ('"', "'"):
            return self._quoted()
        if self.next() in ("?", "<", "&", "*", "!", "%", "@", "`", "|", ">", "[", "{"):
            self.fail("such a key is not read here")
        return self._take(_PLAIN, "a key was expected")

    def _list(self) -> Value:
        column, found = self.column(), list[Value]()
        while self.at < len(self.text) and self.column() == column and self._at_item():
            self.at += 1
            found.append(self.node(column))
            self.skip()
        return found

    def _mapping(self) -> Value:
        column, found = self.column(), dict[str, Value]()
        while self.at < len(self.text) and self.column() == column and not self._at_item():
            key = self._key()
            self._take(_KEY_END, "a colon was expected")
            self._put(found, key, self.node(column, beside=True))
            self.skip()
        if self.at < len(self.text) and self.column() > column:
            self.fail("it is indented like nothing above")
        return found

    def _put(self, found: dict[str, Value], key: str, value: Value) -> None:
        if key in found:
            self.fail(f"{key} is given twice")
        found[key] = value

    def _flow(self) -> Value:
        closing = {"[": "]", "{": "}"}[self.next()]
        self.at += 1
        items, pairs = list[Value](), dict[str, Value]()
        self.skip()
        while self.next() != closing:
            if closing == "]":
                items.append(self._flow_node())
            else:
                key = self._flow_scalar()
                value = (
                    self._flow_node() if _FLOW_KEY_END.match(self.text, self.at) and self._colon() else None
                )
                self._put(pairs, key, value)
            self.skip()
            if self.next() == ",":
                self.at += 1
                self.skip()
            elif self.next() != closing:
                self.fail(f"a comma or {closing} was expected")
        self.at += 1
        return items if closing == "]" else pairs

    def _colon(self) -> bool:
        self.at = self._match(_FLOW_KEY_END).end()
        self.skip()
        return True

    def _flow_node(self) -> Value:
        self.skip()
        anchor = ""
        if self.next() == "&":
            self.at += 1
            anchor = self._take(_NAME, "an anchor needs a name")
            self.skip()
        if self.next() in ("[", "{"):
            value = self._flow()
        elif self.next() == "*":
            value = self._alias()
        else:
            value = None if self.next() in (",", "}", "]") else self._flow_scalar()
        if anchor:
            self.anchors[anchor] = value
        return value

    def _flow_scalar(self) -> str:
        if self.next() in ('"', "'"):
            return self._quoted()
        if self.next() in ("?", "<", "&", "*", "!", "%", "@", "`", "|", ">", "-") and self.next(2)[1:] in (
            "",
            " ",
            "<",
            "\n",
        ):
            self.fail("this is not read here")
        if self.next() in ("&", "*", "!", "%", "@", "`", "|", ">"):
            self.fail("this is not read here")
        lines = [self._take(_FLOW_PLAIN, "a value was expected")]
        while match := re.compile(r"[ ]*\n\s*").match(self.text, self.at):
            following = _FLOW_PLAIN.match(self.text, match.end())
            if not following or following[0].startswith("#"):
                break
            lines.append(following[0])
            self.at = following.end()
        return " ".join(lines)

    def _alias(self) -> Value:
        self.at += 1
        name = self._take(_NAME, "an alias needs a name")
        if name not in self.anchors:
            self.fail(f"there is no anchor {name}")
        return self.anchors[name]

    def _quoted(self) -> str:
        single = self.next() == "'"
        match = (_SINGLE if single else _DOUBLE).match(self.text, self.at)
        if not match:
            self.fail("a quote is not closed")
        self.at = match.end()
        if single:
            return _FOLD.sub(_folded, match[1].replace("''", "'"))
        parts, done = [], 0
        for escape in _ESCAPE.finditer(match[1]):
            parts += [_FOLD.sub(_folded, match[1][done : escape.start()]), self._escaped(escape)]
            done = escape.end()
        return "".join([*parts, _FOLD.sub(_folded, match[1][done:])])

    def _escaped(self, found: re.Match[str]) -> str:
        digits = found[1] or found[2] or found[3]
        if digits:
            return chr(int(digits, 16))
        if found[4] is None:
            return ""
        if found[4] not in _ESCAPED:
            self.fail(f"{found[0]} is no escape")
        return _ESCAPED[found[4]]

    def _plain_lines(self, parent: int) -> str:
        if self.next() in ("!", "%", "@", "`", "&", "]", "}", ",", "?", "#"):
            self.fail("this is not read here")
        lines = [self._take(_PLAIN, "a value was expected")]
        while match := re.compile(r"[ ]*\n(\s*)").match(self.text, self.at):
            before, self.at = self.at, match.end()
            if self.at >= len(self.text) or self.column() <= parent or self.next() == "#":
                self.at = before
                break
            empty = match[0].count("\n") - 1
            lines.append("\n" * empty if empty else " ")
            lines.append(self._take(_PLAIN, "a value was expected"))
        if _KEY_END.match(self.text, self.at):
            self.fail("a colon that belongs to nothing")
        return "".join(lines)

    def _block_scalar(self, parent: int) -> str:
        header = _BLOCK.match(self.text, self.at)
        if not header:
            self.fail("such a block is not read here")
        self.at = header.end()
        lines, indent = list[str](), -1
        while self.at < len(self.text):
            line, _, _ = self.text[self.at :].partition("\n")
            width = len(line) - len(line.lstrip(" "))
            if line.strip(" "):
                indent = width if indent < 0 else indent
                if width <= parent or width < indent:
                    break
            lines.append(line)
            self.at += len(line) + 1
        self.at = min(self.at, len(self.text))
        # Ends at the line end before what follows, as every other node does.
        text = "\n".join(line[max(indent, 0) :] for line in lines).rstrip("\n")
        return text if header[2] == "-" or not text else f"{text}\n"

    def _take(self, pattern: re.Pattern[str], otherwise: str) -> str:
        match = pattern.match(self.text, self.at)
        if not match or not match[0]:
            self.fail(otherwise)
        self.at = match.end()
        return match[0]

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self.text, self.at)
        assert match  # noqa: S101 - it may be empty, so there is one everywhere
        return match


def _folded(found: re.Match[str]) -> str:
    """A line end in quotes is a blank, and n empty lines are n line ends."""
    return "\n" * (found[0].count("\n") - 1) or " "

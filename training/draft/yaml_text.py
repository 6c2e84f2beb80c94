"""Writes values as YAML on one line that YAML 1.1 and YAML 1.2 read alike.

Libraries write for one version: PyYAML (1.1) leaves the text `1e5` plain, ruamel.yaml (1.2) the text `yes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LONGEST_KEY = 1000
"""Characters; YAML readers refuse longer keys on one line."""

_PLAIN = re.compile(r"[A-Za-z_][\w./%()-]*(?: [\w./%()-]+)*", re.ASCII)
_RESERVED = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def entry(key: str, value: Any) -> str:
    """One `key: value` line."""
    return f"{text(key)}: {flow(value)}"


def flow(value: Any) -> str:
    """A mapping, list, text or number."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(entry(key, each) for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        mantissa, mark, exponent = repr(value).partition("e")
        # Without the point, YAML 1.1 reads 1e-05 as text.
        return mantissa + (".0" if mark and "." not in mantissa else "") + mark + exponent
    return str(value)


def text(value: str) -> str:
    """Plain if every version reads it as this text, otherwise in double quotes."""
    if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

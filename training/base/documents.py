"""Reads YAML as DVC does."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import ScalarNode


def parse_yaml(content: str | bytes, *, spelling: bool = False) -> Any:
    """Read a file that DVC reads or writes, with DVC's own reader: YAML 1.2, in which `1e2` is a number.

    Args:
        content: of the file.
        spelling: whether numbers have an attribute of that name with their text in the file.

    Raises:
        ValueError: it is not YAML in UTF-8; says where in one line.
    """
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    try:
        # The parser in C, with which DVC reads, refuses some of YAML and crashes on what is nested too deeply.
        reader = YAML(typ="safe", pure=True)
        if spelling:
            reader.Constructor = _SpellingConstructor
        return reader.load(text)
    except MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{' '.join(str(error.problem).split())}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


class _Integer(int):
    spelling: str


class _Float(float):
    spelling: str


class _SpellingConstructor(SafeConstructor):
    def construct_yaml_int(self, node: ScalarNode) -> int:
        value = _Integer(super().construct_yaml_int(node))
        value.spelling = str(node.value)
        return value

    def construct_yaml_float(self, node: ScalarNode) -> float:
        value = _Float(super().construct_yaml_float(node))
        value.spelling = str(node.value)
        return value


for _kind in ("int", "float"):
    _SpellingConstructor.add_constructor(
        f"tag:yaml.org,2002:{_kind}", getattr(_SpellingConstructor, f"construct_yaml_{_kind}")
    )

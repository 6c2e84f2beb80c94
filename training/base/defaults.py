"""Completes a model's parameters with the defaults of the repository."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def complete(own: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a model, with the defaults for what it leaves out.

    Mappings are merged key by key; of anything else the model's value counts. A null removes the default. The model's
    own blocks say which algorithms are trained. A `search` is taken whole. What the model fixes is not searched, and
    what it searches is not fixed, whatever the default does. Each block gets `train.features`, unless it has its own.
    """
    result = _merged(defaults, own)
    blocks = own.get("train", {}).get("algorithms") if isinstance(own.get("train"), Mapping) else None
    if not isinstance(blocks, Mapping):
        # Without blocks the defaults' algorithms are not meant: DVC has a stage for each of the model's own.
        return {**result, "train": own["train"]} if "train" in own else _without(result, "train")
    known = defaults.get("train", {}).get("algorithms", {})
    features = result["train"].get("features")
    shared = {"features": features} if features else {}
    algorithms = {name: _block(block, known.get(name), shared) for name, block in blocks.items()}
    return {**result, "train": {**result["train"], "algorithms": algorithms}}


def _block(own: Any, default: Mapping[str, Any] | None, shared: Mapping[str, Any]) -> Any:
    if not isinstance(own, Mapping | None):
        return own
    if shared:
        own = {**shared, **(own or {})}
    if default is None or (own and own.get("estimator")):
        # The defaults are about an algorithm of the project.
        return own
    own = own or {}
    search, found = default.get("search"), own.get("search")
    if isinstance(found, Mapping) and isinstance(found.get("space"), Mapping):
        default = {name: value for name, value in default.items() if name not in found["space"]}
    elif search and "search" not in own:
        space = {name: values for name, values in search["space"].items() if name not in own}
        default = {**default, "search": {**search, "space": space}} if space else _without(default, "search")
    return _merged(default, own, whole={"search"})


def _merged(
    default: Mapping[str, Any], own: Mapping[str, Any], whole: frozenset[str] | set[str] = frozenset()
) -> dict[str, Any]:
    result = dict(default)
    for key, value in own.items():
        known = result.get(key)
        if value is None and key in default:
            del result[key]
        elif isinstance(value, Mapping) and isinstance(known, Mapping) and key not in whole:
            result[key] = _merged(known, value)
        else:
            result[key] = value
    return result


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}

"""Runs a function for each of some items: one after another, or as tasks on the workers of a Dask cluster.

The tasks draw no random numbers of their own and read the same files, so both ways give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeVar

from training.base.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")
Engine = Literal["local", "dask"]

ADDRESS = "ESPALIER_DASK"


class Runner(Protocol):
    """How work is spread."""

    def completed(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[int, Result]]:
        """Results with the positions of their items, as they come. Function, items and results are pickled.

        Closing the iterator cancels what has not begun.
        """

    def together(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results in order, computed in this process by functions that spread work themselves."""


class Loop:
    """One after another, in this process."""

    def completed(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[int, Result]]:
        for position, item in enumerate(items):
            yield position, function(item)

    def together(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        return [function(each) for each in items]


_LOOP = Loop()
_opened: list[Any] = []
"""The cluster of this process, if it has one."""


@contextmanager
def opened(engine: Engine) -> Iterator[None]:
    """Use an engine for what this process spreads; where ESPALIER_DASK names a scheduler, it is `dask`.

    Raises:
        ConfigError: the engine's package is not installed, or its cluster cannot be used.
    """
    address = os.environ.get(ADDRESS)
    if engine == "local" and not address:
        yield
        return
    from training.train import cluster

    with cluster.connected(address) as found:
        _opened.append(found)
        try:
            yield
        finally:
            _opened.remove(found)


def runner(*, spread: bool = True) -> Runner:
    """What runs functions now.

    Args:
        spread: False for fits that use the cluster themselves, one after another.
    """
    return _opened[-1] if _opened and spread else _LOOP


def cluster_in_use() -> Any:
    """The `training.train.cluster.Cluster` that distributed fits use; None without one."""
    return _opened[-1] if _opened else None


def mapped(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    what: str,
    unit: str,
    rows: int = 0,
    *,
    spread: bool = True,
) -> list[Result]:
    """Results in the order of the items.

    Args:
        function: for each item.
        items: what it is called with.
        what: the step, whose progress is shown.
        unit: what an item is.
        rows: that the function works on.
        spread: as for `runner`.
    """
    listed, found = list(items), {}
    with progress(what, len(listed), unit, rows) as done:
        for place, result in runner(spread=spread).completed(function, listed):
            found[place] = result
            done.advance()
    return [found[each] for each in range(len(listed))]

"""The paths of a tree from its root to its leaves, as conditions on the columns that they pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from typing import NamedTuple

from training.train.onnx.ensembles import Tree

_SMALLEST_SHARE = 1e-12
"""Of a child that no training row reached. Zero would make a product of which no factor could be taken out again."""


class Condition(NamedTuple):
    """What a path asks of one column, over all of its splits.

    Attributes:
        above: a value has to be above this one; NaN for any.
        up_to: the largest value.
        missing: whether a missing value goes this way.
        share: of the training rows in front of these splits, how many go this way.
        codes: of a category that go this way, or that do not.
        among: whether a code has to be one of these.
    """

    above: float = math.nan
    up_to: float = math.inf
    missing: bool = True
    share: float = 1.0
    codes: Set[int] = frozenset()
    among: bool = False

    def within(self, codes: Set[int], share: float) -> Condition:
        """With a further split, whose codes go this way."""
        left = self.codes & codes if self.among else codes - self.codes
        return self._replace(codes=left, among=True, share=self.share * share)

    def beyond(self, codes: Set[int], share: float) -> Condition:
        """With a further split, whose codes go the other way."""
        left = self.codes - codes if self.among else self.codes | codes
        return self._replace(codes=left, share=self.share * share)


def paths(tree: Tree) -> Iterator[tuple[int, Mapping[int, Condition]]]:
    """Each leaf, with the condition on each column that its path passes."""
    # Python's own numbers, because single numbers of an array are slow.
    feature, limit, missing_left = tree.feature.tolist(), tree.limit.tolist(), tree.missing_left.tolist()
    left, right, cover = tree.left.tolist(), tree.right.tolist(), tree.cover.tolist()
    waiting: list[tuple[int, dict[int, Condition]]] = [(0, {})]
    while waiting:
        node, passed = waiting.pop()
        if left[node] < 0:
            yield node, passed
            continue
        column = feature[node]
        known = passed.get(column, Condition())
        shares = _share(cover, left[node], node), _share(cover, right[node], node)
        if node in tree.sets:
            leftwards = known.within(tree.sets[node], shares[0])
            rightwards = known.beyond(tree.sets[node], shares[1])
        else:
            to_left = missing_left[node]
            leftwards = Condition(
                known.above, min(known.up_to, limit[node]), known.missing and to_left, known.share * shares[0]
            )
            rightwards = Condition(
                # The first operand decides if the other is NaN.
                max(limit[node], known.above),
                known.up_to,
                known.missing and not to_left,
                known.share * shares[1],
            )
        waiting.append((right[node], {**passed, column: rightwards}))
        waiting.append((left[node], {**passed, column: leftwards}))


def _share(cover: list[float], child: int, parent: int) -> float:
    # Below a node without training rows, any shares that add up to 1 will do.
    if cover[parent] <= 0:
        return 0.5
    return min(max(cover[child] / cover[parent], _SMALLEST_SHARE), 1 - _SMALLEST_SHARE)

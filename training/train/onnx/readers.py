"""Reads the fitted trees of scikit-learn, XGBoost, LightGBM and CatBoost."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier

from training.train.onnx.ensembles import (
    Classification,
    Ensemble,
    Floats,
    Link,
    Regression,
    Tree,
    in_float32,
)

_LIGHTGBM_ZERO = float(np.float32(1e-35))
"""LightGBM takes values up to here, on both sides of zero, for zero."""
_LIGHTGBM_EXPONENTIAL = ("poisson", "gamma", "tweedie")
_XGBOOST_EXPONENTIAL = ("count:poisson", "reg:gamma", "reg:tweedie")
"""Objectives whose values are the exponential of the sums."""
_CATEGORICAL, _LEFT_IF_MISSING, _MISSING_KIND, _NAN_IS_MISSING, _ZERO_IS_MISSING = 1, 2, 12, 8, 4
"""Bits of LightGBM's decision types."""


def read(fitted: Any) -> Ensemble | None:
    """The trees of a fitted estimator; None if it has none that can be read.

    Raises:
        ValueError: the estimator was fitted with an option that trees alone do not express.
    """
    for kind in type(fitted).__mro__:
        reader = _READERS.get(f"{kind.__module__.split('.')[0]}.{kind.__name__}")
        if reader is not None:
            return reader(fitted)
    return None


def _forest(fitted: Any) -> Ensemble:
    trees = [each.tree_ for each in getattr(fitted, "estimators_", [fitted])]
    read = [_sklearn_tree(each, each.value[:, 0, :]) for each in trees]
    classes = _classes(fitted)
    return Classification(read, Link.MEAN, classes=classes) if classes else Regression(read, Link.MEAN)


def _gradient_boosting(fitted: Any) -> Ensemble:
    trees = [
        _sklearn_tree(each.tree_, fitted.learning_rate * each.tree_.value[:, 0, :])
        for each in fitted.estimators_.ravel()
    ]
    bases = fitted._raw_predict_init(np.zeros((1, fitted.n_features_in_)))[0]
    # Of two classes, scikit-learn takes the second if the sum is 0.
    return _boosted(trees, bases, _classes(fitted), cutoff=-float(np.finfo(np.float64).tiny))


def _sklearn_tree(tree: Any, values: Floats) -> Tree:
    # The pipeline fills gaps in front of these trees, so no value is missing.
    missing = np.zeros(tree.node_count, dtype=bool)
    return Tree(
        tree.feature,
        in_float32(tree.threshold),
        missing,
        tree.children_left,
        tree.children_right,
        values,
        tree.weighted_n_node_samples,
    )


def _hist_gradient_boosting(fitted: Any) -> Ensemble:
    columns, seen = _hist_columns(fitted)
    trees = [_hist_tree(each, columns, seen) for iteration in fitted._predictors for each in iteration]
    link = Link.EXPONENTIAL if fitted.loss in ("poisson", "gamma") else Link.IDENTITY
    return _boosted(trees, fitted._baseline_prediction.ravel(), _classes(fitted), link=link)


def _hist_columns(fitted: Any) -> tuple[NDArray[np.int64], Mapping[int, Floats]]:
    """The input's column of each column in the trees, where categories come first, and the codes seen in training."""
    categorical = fitted.is_categorical_
    if categorical is None:
        return np.arange(fitted.n_features_in_), {}
    columns = np.concatenate([np.flatnonzero(categorical), np.flatnonzero(~categorical)])
    seen = fitted._preprocessor.named_transformers_["encoder"].categories_
    return columns, dict(zip(columns.tolist(), seen, strict=False))


def _hist_tree(predictor: Any, columns: NDArray[np.int64], seen: Mapping[int, Floats]) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    feature = np.where(leaf, 0, columns[np.where(leaf, 0, nodes["feature_idx"])])
    left = np.where(leaf, -1, nodes["left"].astype(np.int64))
    right = np.where(leaf, -1, nodes["right"].astype(np.int64))
    sets: dict[int, Set[int]] = {}
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf).tolist():
        # The bits are positions among the codes that training has seen. Others go where missing values do.
        codes = seen[int(feature[node])].astype(np.int64).tolist()
        bits = _bits(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
        to_right = bool(nodes["missing_go_to_left"][node])
        sets[node] = frozenset(code for place, code in enumerate(codes) if (place in bits) != to_right)
        if to_right:
            left[node], right[node] = right[node], left[node]
    return Tree(
        feature,
        np.where(leaf, 0.0, nodes["num_threshold"]),
        nodes["missing_go_to_left"].astype(bool),
        left,
        right,
        nodes["value"][:, np.newaxis],
        nodes["count"].astype(np.float64),
        sets,
    )


def _xgboost(fitted: Any) -> Ensemble:
    learner = json.loads(fitted.get_booster().save_raw("json"))["learner"]
    model = learner["gradient_booster"]["model"]
    trees = [_xgboost_tree(each) for each in model["trees"]]
    classes = _classes(fitted)
    exponential = learner["objective"]["name"] in _XGBOOST_EXPONENTIAL
    bases = np.array(json.loads(learner["learner_model_param"]["base_score"]), dtype=np.float32)
    # Most are sums; these are kept as a probability and as a value.
    if classes == 2:
        bases = np.array([-math.log(1 / each - 1) for each in bases.tolist()])
    elif exponential:
        bases = np.array([math.log(each) for each in bases.tolist()])
    sums = classes if classes > 2 else 1
    # Each round has one tree or more for each class.
    order = np.argsort(model["tree_info"], kind="stable").reshape(sums, -1).T.ravel()
    return _boosted(
        [trees[each] for each in order],
        np.broadcast_to(bases, sums).astype(np.float64),
        classes,
        link=Link.EXPONENTIAL if exponential else Link.IDENTITY,
        single=True,
        by_probability=True,
    )


def _xgboost_tree(tree: Mapping[str, Any]) -> Tree:
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    sets: dict[int, Set[int]] = {}
    for node, start, count in zip(
        tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
    ):
        # XGBoost's go right.
        sets[node] = frozenset(tree["categories"][start : start + count])
        left[node], right[node] = right[node], left[node]
    return Tree(
        np.array(tree["split_indices"]),
        np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64),
        np.array(tree["default_left"], dtype=bool),
        left,
        right,
        # XGBoost keeps a leaf's value where an inner node has its threshold.
        conditions.astype(np.float64)[:, np.newaxis],
        np.array(tree["sum_hessian"], dtype=np.float64),
        sets,
    )


def _lightgbm(fitted: Any) -> Ensemble:
    text = fitted.booster_.model_to_string()
    header, *blocks = text.split("end of trees")[0].split("\nTree=")
    if "\naverage_output\n" in header:
        raise ValueError("boosting_type: rf is not supported")
    trees = [_lightgbm_tree(dict(_pairs(each))) for each in blocks]
    classes = _classes(fitted)
    exponential = str(fitted.objective_) in _LIGHTGBM_EXPONENTIAL
    return _boosted(
        trees,
        np.zeros(classes if classes > 2 else 1),
        classes,
        link=Link.EXPONENTIAL if exponential else Link.IDENTITY,
        by_probability=True,
    )


def _pairs(block: str) -> Iterator[tuple[str, str]]:
    for line in block.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            yield key, value


def _lightgbm_tree(tree: Mapping[str, str]) -> Tree:
    if tree["is_linear"] != "0":
        raise ValueError("linear trees are not supported")
    leaves = _numbers(tree, "leaf_value")
    if len(leaves) == 1:
        return Tree.constant(leaves[0])
    # Inner nodes come first here; leaf i is -1 - i there.
    inner = len(leaves) - 1
    left, right = (
        np.where(each < 0, inner - 1 - each, each)
        for each in (_numbers(tree, name).astype(np.int64) for name in ("left_child", "right_child"))
    )
    kinds = _numbers(tree, "decision_type").astype(np.int64)
    limits = _numbers(tree, "threshold")
    sets = _lightgbm_sets(tree, np.flatnonzero(kinds & _CATEGORICAL), limits)
    limits = np.where((limits >= 0) & (limits < _LIGHTGBM_ZERO), _LIGHTGBM_ZERO, limits)
    below = np.nextafter(-_LIGHTGBM_ZERO, -np.inf)
    limits = np.where((limits < 0) & (limits > below), below, limits)
    if (kinds & _MISSING_KIND == _ZERO_IS_MISSING).any():
        raise ValueError("zero_as_missing is not supported")
    # Without gaps in training, LightGBM takes a missing value for zero.
    missing_left = np.where(kinds & _NAN_IS_MISSING, kinds & _LEFT_IF_MISSING != 0, limits >= 0)
    none = np.full(len(leaves), -1)
    return Tree(
        np.concatenate(
            [_numbers(tree, "split_feature").astype(np.int64), np.zeros(len(leaves), dtype=np.int64)]
        ),
        np.concatenate([limits, np.zeros(len(leaves))]),
        np.concatenate([missing_left, np.zeros(len(leaves), dtype=bool)]),
        np.concatenate([left, none]),
        np.concatenate([right, none]),
        np.concatenate([np.zeros(inner), leaves])[:, np.newaxis],
        np.concatenate([_numbers(tree, "internal_count"), _numbers(tree, "leaf_count")]),
        sets,
    )


def _lightgbm_sets(
    tree: Mapping[str, str], nodes: NDArray[np.int64], limits: Floats
) -> Mapping[int, Set[int]]:
    """The sets of nodes, whose limits are positions in the list of sets."""
    if not len(nodes):
        return {}
    words = np.array(tree["cat_threshold"].split(), dtype="<u4")
    bounds = _numbers(tree, "cat_boundaries").astype(np.int64)
    sets = [_bits(each) for each in np.split(words, bounds[1:-1])]
    return {node: sets[int(limits[node])] for node in nodes.tolist()}


def _bits(words: Any) -> Set[int]:
    """The positions of the bits that are set in words of 32."""
    bits = np.unpackbits(np.ascontiguousarray(words, dtype="<u4").view(np.uint8), bitorder="little")
    return frozenset(np.flatnonzero(bits).tolist())


def _numbers(tree: Mapping[str, str], name: str) -> Floats:
    return np.array([float(each) for each in tree[name].split()])


def _catboost(fitted: Any) -> Ensemble:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        fitted.save_model(str(path), format="json")
        model = json.loads(path.read_bytes())
    info = model["features_info"]
    features = info.get("float_features", [])
    columns = [each["flat_feature_index"] for each in features]
    missing_left = [each["nan_value_treatment"] != "AsTrue" for each in features]
    if any(len(each["elements"]) > 1 for each in info.get("ctrs", [])):
        raise ValueError("statistics of combined categories are not supported: use max_ctr_complexity: 1")
    if "oblivious_trees" in model:
        asked = _catboost_sets(fitted, model["oblivious_trees"]) if "categorical_features" in info else {}
        trees = [
            _oblivious_tree(each, columns, missing_left, asked.get(tree, {}))
            for tree, each in enumerate(model["oblivious_trees"])
        ]
    elif "categorical_features" in info:
        raise ValueError("categories: native is not supported with this grow_policy: leave it out")
    else:
        trees = [_catboost_tree(each, columns, missing_left) for each in model["trees"]]
    scale, bases = model["scale_and_bias"]
    if scale != 1:
        raise ValueError("a scaled model is not supported")
    return _boosted(trees, np.array(bases, dtype=np.float64), _classes(fitted))


def _catboost_sets(
    fitted: Any, trees: Sequence[Mapping[str, Any]]
) -> Mapping[int, Mapping[int, tuple[int, Set[int], bool]]]:
    """What the splits over categories ask, by tree and number of the split.

    CatBoost compares statistics of a category, whose place in the file depends on a hash of it. But for each category, the leaf
    that CatBoost finds says how all splits answer.

    Returns:
        The column, the codes whose answer differs from that of codes which training has not seen, and their answer.
    """
    asked = [(column, code) for column, codes in fitted.codes_.items() for code in codes.astype(int).tolist()]
    rows = np.zeros((1 + len(asked), len(fitted.feature_names_)))
    rows[:, [*fitted.codes_]] = -1
    for row, (column, code) in enumerate(asked, 1):
        rows[row, column] = code
    leaves = np.asarray(fitted.calc_leaf_indexes(fitted.coded(rows))).astype(np.int64)
    found: dict[int, dict[int, tuple[int, Set[int], bool]]] = {}
    for tree, each in enumerate(trees):
        found[tree] = {}
        for number, split in enumerate(each["splits"] or []):
            if split["split_type"] == "FloatFeature":
                continue
            answers = leaves[:, tree] >> number & 1
            members = [asked[row - 1] for row in np.flatnonzero(answers != answers[0])]
            column = members[0][0] if members else asked[0][0]
            codes = frozenset(code for _, code in members)
            found[tree][number] = (column, codes, not answers[0])
    return found


def _oblivious_tree(
    tree: Mapping[str, Any],
    columns: Sequence[int],
    missing_left: Sequence[bool],
    asked: Mapping[int, tuple[int, Set[int], bool]],
) -> Tree:
    """A complete tree: all nodes of a depth ask the same question, the last one at the root.

    From left to right, the binary digits of a leaf's position are the answers from the root down.
    """
    splits = tree["splits"] or []
    depth, inner = len(splits), 2 ** len(splits) - 1
    values = np.reshape(tree["leaf_values"], (2**depth, -1))
    feature, limit, missing = (np.zeros(2 * inner + 1, dtype=kind) for kind in (np.int64, np.float64, bool))
    left = 2 * np.arange(inner) + 1
    right = left + 1
    sets: dict[int, Set[int]] = {}
    for number, split in enumerate(splits):
        level = depth - 1 - number
        nodes = slice(2**level - 1, 2 ** (level + 1) - 1)
        if number in asked:
            feature[nodes], members, answer = asked[number]
            sets |= dict.fromkeys(range(inner)[nodes], members)
            if answer:
                left[nodes], right[nodes] = right[nodes].copy(), left[nodes].copy()
            continue
        index = _float_feature(split)
        feature[nodes] = columns[index]
        limit[nodes] = in_float32(np.array(split["border"], dtype=np.float64))
        missing[nodes] = missing_left[index]
    cover = [np.array(tree["leaf_weights"], dtype=np.float64)]
    for _ in splits:
        cover.insert(0, cover[0].reshape(-1, 2).sum(axis=1))
    none = np.full(2**depth, -1)
    return Tree(
        feature,
        limit,
        missing,
        np.concatenate([left, none]),
        np.concatenate([right, none]),
        np.concatenate([np.zeros((inner, values.shape[1])), values]),
        np.concatenate(cover),
        sets,
    )


def _catboost_tree(tree: Mapping[str, Any], columns: Sequence[int], missing_left: Sequence[bool]) -> Tree:
    rows: list[tuple[int, float, bool, list[float]]] = []
    cover: list[float] = []
    children: list[list[int]] = []

    def visit(node: Mapping[str, Any]) -> int:
        number = len(rows)
        children.append([-1, -1])
        if "value" in node:
            rows.append((0, 0.0, False, np.ravel(node["value"]).tolist()))
            cover.append(node["weight"])
            return number
        index = _float_feature(node["split"])
        rows.append((columns[index], node["split"]["border"], missing_left[index], []))
        cover.append(0.0)
        children[number] = [visit(node["left"]), visit(node["right"])]
        cover[number] = sum(cover[child] for child in children[number])
        return number

    visit(tree)
    width = max(len(values) for *_, values in rows)
    feature, border, missing, values = zip(*rows, strict=True)
    left, right = np.array(children).T
    return Tree(
        np.array(feature),
        in_float32(np.array(border, dtype=np.float64)),
        np.array(missing),
        left,
        right,
        np.array([each or [0.0] * width for each in values]),
        np.array(cover, dtype=np.float64),
    )


def _float_feature(split: Mapping[str, Any]) -> int:
    if split["split_type"] != "FloatFeature":
        raise ValueError(f"splits of the type {split['split_type']} are not supported")
    index: int = split["float_feature_index"]
    return index


def _classes(fitted: Any) -> int:
    """How many classes there are; 0 for a regressor."""
    return len(fitted.classes_) if is_classifier(fitted) else 0


def _boosted(
    trees: Sequence[Tree],
    bases: Floats,
    classes: int,
    *,
    link: Link = Link.IDENTITY,
    cutoff: float | None = None,
    single: bool = False,
    by_probability: bool = False,
) -> Ensemble:
    """Trees whose sums start from bases.

    Args:
        trees: those of a round beside each other, one for each base; or each with values for all classes.
        bases: added first.
        classes: how many; 0 for a regressor.
        link: of a regressor.
        cutoff: as in `Classification`.
        single: as in `Ensemble`.
        by_probability: whether the estimator compares probabilities, and not sums.
    """
    kind = np.float32 if single else np.float64
    if not trees:
        trees = [Tree.constant(0.0) for _ in bases]
    if trees[0].values.shape[1] > 1:
        first = [trees[0].plus(bases, kind)]
    else:
        first = [tree.plus(base, kind) for tree, base in zip(trees[: len(bases)], bases, strict=True)]
    all_trees = [*first, *trees[len(first) :]]
    if not classes:
        return Regression(all_trees, link, single)
    if cutoff is None:
        cutoff = _half(kind) if by_probability else 0.0
    return Classification(
        all_trees,
        Link.LOGISTIC if classes == 2 else Link.SOFTMAX,
        single,
        classes=classes,
        cutoff=cutoff,
        compares_probabilities=by_probability,
    )


def _half(kind: type[np.floating]) -> float:
    """The largest number whose logistic function is not above 0.5 after rounding."""
    low, high = kind(0), kind(1e-3)
    while np.nextafter(low, high) < high:
        middle = low + (high - low) / kind(2)
        above = kind(1) / (kind(1) + np.exp(-middle)) > kind(0.5)
        low, high = (low, middle) if above else (middle, high)
    return float(low)


_READERS: Mapping[str, Callable[[Any], Ensemble]] = {
    "sklearn.DecisionTreeClassifier": _forest,
    "sklearn.DecisionTreeRegressor": _forest,
    "sklearn.ForestClassifier": _forest,
    "sklearn.ForestRegressor": _forest,
    "sklearn.BaseGradientBoosting": _gradient_boosting,
    "sklearn.BaseHistGradientBoosting": _hist_gradient_boosting,
    "xgboost.XGBModel": _xgboost,
    "lightgbm.LGBMModel": _lightgbm,
    "catboost.CatBoost": _catboost,
}
"""By package and class, so that a package is not imported only to be compared."""

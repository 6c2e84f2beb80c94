"""Fits XGBoost and LightGBM on several workers of a cluster together, each of which reads its own part of the rows.

The bounds of the bins and the sums of the gradients are put together from those of the parts, so their number is a parameter of
the model: it needs as many workers, and the same number gives the same bytes. A lost worker ends such a fit for all, so it
starts again as a whole.
"""

from __future__ import annotations

import logging
import operator
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier

from training.base.errors import ClusterError, ConfigError
from training.data.dataset import Split, Taken
from training.train import engine
from training.train.algorithms.inputs import inputs

log = logging.getLogger(__name__)

TRIES = 3
SECONDS_TO_NOTICE = 10
"""Until the scheduler knows that a worker has died."""


def fit_last(pipeline: Any, split: Split, seen: Split) -> Any:
    """Fit the steps before the last one in this process, and the last one on the workers.

    Args:
        pipeline: a `WeightedPipeline` with partitions; its steps before the last one are fitted.
        split: the rows.
        seen: those on which the steps before the last one are fitted.

    Returns:
        The fitted last step, an estimator like any other.

    Raises:
        ConfigError: there is no cluster.
        ClusterError: every try lost a worker.
    """
    cluster = engine.cluster_in_use()
    if cluster is None:
        raise ConfigError("partitions need `engine: dask` under train")
    steps = pipeline[:-1] if len(pipeline) > 1 else None
    if steps is not None:
        steps.fit(inputs(seen), seen.target)
    weights = pipeline.weights(split.target, split.weights)
    for number in range(1, TRIES + 1):
        cluster.wait_for_workers(pipeline.partitions)
        workers = list(cluster.workers())[: pipeline.partitions]
        try:
            return _fitted(cluster, workers, pipeline[-1], steps, split, weights)
        except Exception:
            if not _lost(cluster, workers):
                raise
            log.warning("a worker was lost in a fit on partitions (try %d of %d)", number, TRIES)
    raise ClusterError(
        f"{TRIES} fits on partitions lost a worker each: use machines that stay, or more memory for each worker"
    )


def _lost(cluster: Any, before: list[str]) -> bool:
    end = time.monotonic() + SECONDS_TO_NOTICE
    while {*before} <= {*cluster.workers()}:
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def _fitted(
    cluster: Any,
    workers: list[str],
    estimator: Any,
    steps: Any,
    split: Split,
    weights: NDArray[np.float64] | None,
) -> Any:
    import dask
    import dask.array as da

    client = cluster.client
    fit = {"xgboost": _xgboost, "lightgbm": _lightgbm}[type(estimator).__module__.partition(".")[0]]
    # Like the fit itself, this knows the columns only once it has a row.
    width = _prepared(steps, split.take(np.arange(1))).shape[1]
    columns: list[list[Any]] = []
    parts = _parts(fit is _lightgbm, len(split), len(workers))
    for worker, rows in zip(workers, parts, strict=True):
        where = {"workers": [worker], "allow_other_workers": True}
        weight = None if weights is None else weights[rows]
        read = partial(_part, Taken(split, rows).alone(), steps, weight)
        part = client.submit(operator.call, cluster.carry(read, **where), pure=False, **where)
        shapes = [((len(rows), width), np.float64), ((len(rows),), split.target.dtype)]
        shapes += [] if weights is None else [((len(rows),), np.float64)]
        columns.append(
            [
                da.from_delayed(
                    dask.delayed(client.submit(operator.itemgetter(place), part, pure=False, **where)), *shape
                )
                for place, shape in enumerate(shapes)
            ]
        )
    arrays = [da.concatenate(each) for each in zip(*columns, strict=True)]
    return fit(client, workers, estimator, arrays)


def _parts(mixed: bool, rows: int, count: int) -> list[NDArray[np.intp]]:
    """Positions of the rows of each part.

    Args:
        mixed: whether each part shall be like the whole, which LightGBM needs: it finds bins in the rows of one worker, and
            expects each class in all. Other parts are neighbours, of which a worker reads few row groups.
        rows: of the split.
        count: of the parts.
    """
    everything = np.arange(rows)
    return [everything[each::count] for each in range(count)] if mixed else np.array_split(everything, count)


def _part(
    read: Callable[[], Split], steps: Any, weights: NDArray[np.float64] | None
) -> tuple[NDArray[Any], ...]:
    split = read()
    found = np.asarray(_prepared(steps, split), dtype=np.float64), split.target
    return found if weights is None else (*found, weights)


def _prepared(steps: Any, split: Split) -> Any:
    return inputs(split) if steps is None else steps.transform(inputs(split))


def _xgboost(client: Any, _: list[str], estimator: Any, arrays: list[Any]) -> Any:
    from xgboost import dask as distributed

    kind = distributed.DaskXGBClassifier if is_classifier(estimator) else distributed.DaskXGBRegressor
    together = kind(**estimator.get_params())
    together.client = client
    together.fit(*arrays[:2], **_weighted(arrays))
    fitted = clone(estimator)
    fitted.load_model(bytearray(together.get_booster().save_raw("ubj")))
    return fitted


def _weighted(arrays: list[Any]) -> dict[str, Any]:
    return {"sample_weight": arrays[2]} if len(arrays) > 2 else {}


def _lightgbm(client: Any, workers: list[str], estimator: Any, arrays: list[Any]) -> Any:
    import lightgbm

    kind = lightgbm.DaskLGBMClassifier if is_classifier(estimator) else lightgbm.DaskLGBMRegressor
    lightgbm.register_logger(logging.getLogger("lightgbm"))
    logging.getLogger("lightgbm").setLevel(logging.ERROR)
    together = kind(**estimator.get_params(), client=client)
    who_has = client.who_has
    # LightGBM numbers the workers in the order of this answer, which is that of a set.
    client.who_has = lambda futures: dict(
        sorted(who_has(futures).items(), key=lambda each: workers.index(each[1][0]))
    )
    try:
        with warnings.catch_warnings():
            # A worker has one thread, whatever n_jobs says.
            warnings.filterwarnings("ignore", message="Parameter n_jobs will be ignored")
            return together.fit(*arrays[:2], **_weighted(arrays)).to_local()
    finally:
        del client.who_has

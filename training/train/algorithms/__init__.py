"""The algorithms and the pipeline around them."""

from training.train.algorithms.factories import FACTORIES, SEED, Algorithm, create
from training.train.algorithms.features import OwnFeatures
from training.train.algorithms.inputs import inputs
from training.train.algorithms.messages import described, reason
from training.train.algorithms.pipelines import approximated, fit, pipeline
from training.train.algorithms.preparation import (
    CATEGORIES,
    ESTIMATOR,
    FEATURES,
    NUMBERS,
    MedianImputer,
    origins,
    unscaled,
)

__all__ = [
    "CATEGORIES",
    "ESTIMATOR",
    "FACTORIES",
    "FEATURES",
    "NUMBERS",
    "SEED",
    "Algorithm",
    "MedianImputer",
    "OwnFeatures",
    "approximated",
    "create",
    "described",
    "fit",
    "inputs",
    "origins",
    "pipeline",
    "reason",
    "unscaled",
]

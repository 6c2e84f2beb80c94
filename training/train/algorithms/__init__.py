"""The algorithms and the pipeline around them."""

from training.train.algorithms.factories import FACTORIES, SEED, Algorithm, create
from training.train.algorithms.messages import described, reason
from training.train.algorithms.pipelines import inputs, pipeline
from training.train.algorithms.preparation import ESTIMATOR, FEATURES, MedianImputer, origins, unscaled

__all__ = [
    "ESTIMATOR",
    "FACTORIES",
    "FEATURES",
    "SEED",
    "Algorithm",
    "MedianImputer",
    "create",
    "described",
    "inputs",
    "origins",
    "pipeline",
    "reason",
    "unscaled",
]

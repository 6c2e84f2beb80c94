"""The errors a person can do something about: the command line shows each as one line and exits with 1."""

from common.errors import EspalierError


class ConfigError(EspalierError):
    """`params.yaml` (or the environment) says something that cannot be done."""


class DataError(EspalierError):
    """The data cannot be read or breaks the declared schema."""


class ParityError(EspalierError):
    """The exported model does not compute what the fitted estimator computes."""


class ClusterError(EspalierError):
    """The cluster was lost, or cannot run a task."""


class GateError(EspalierError):
    """The champion does not reach what `params.yaml` demands of it."""

"""The root of the errors that a person can do something about. A command shows each as one line."""


class EspalierError(Exception):
    """The message names the thing at fault and the remedy."""

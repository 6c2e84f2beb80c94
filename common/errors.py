"""The base of all errors that a person can act on; a command shows each as one line."""


class EspalierError(Exception):
    """The message names the thing at fault and the remedy."""

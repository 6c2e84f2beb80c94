"""The one error of this benchmark."""


class BenchmarkError(Exception):
    """Nothing can be measured, or the result would be meaningless; the message is one line."""

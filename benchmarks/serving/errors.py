"""The one error of this benchmark."""


class BenchmarkError(Exception):
    """Nothing can be measured, or what was measured is worth nothing; the message is one line."""

import common  # noqa: F401 - an interrupt is one line

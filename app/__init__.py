"""The service: loads a model bundle and answers over HTTP."""

__version__ = "0.1.0"

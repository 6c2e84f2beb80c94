"""Bundles and a service in this process, as the service's own tests have them, and Iris as training's have it."""

from tests.app.conftest import mixed_model, number_model, serve, value_model
from tests.training.conftest import trained_iris

__all__ = ["mixed_model", "number_model", "serve", "trained_iris", "value_model"]

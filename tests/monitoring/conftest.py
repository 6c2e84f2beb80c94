"""Bundles and a service in this process, as the service's own tests have them."""

from tests.app.conftest import mixed_model, number_model, serve

__all__ = ["mixed_model", "number_model", "serve"]

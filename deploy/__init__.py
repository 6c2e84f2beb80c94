"""Manifests of what runs where, and the tools that build the image, release it and check all of it."""

import common  # noqa: F401 - an interrupt is one line

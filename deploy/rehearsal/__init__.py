"""Plays the way from a pull request to production and back on one machine; no part of a release."""

"""Delivery: manifests, and the tools that build the image and write what runs where."""

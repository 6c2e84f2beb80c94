"""Builds the image of the service and pushes it, with docker, podman or buildah."""

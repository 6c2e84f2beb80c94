"""Renders the manifests and checks them: each against its kind's schema, and the names by which they refer to others."""

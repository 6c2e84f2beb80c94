"""The sections of params.yaml, a module for each."""

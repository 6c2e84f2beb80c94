"""Compares the service, as users get it, with a bare server and with the alternatives that people use."""

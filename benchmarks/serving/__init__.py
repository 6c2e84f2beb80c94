"""Measures the service as users get it, beside a bare server and beside what people use otherwise."""

"""Everything that watches the service, on one machine: `make monitor`."""

"""Scores Parquet files with the bundle that the service would serve: `python -m app.batch`."""

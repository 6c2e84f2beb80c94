"""`python -m app`: checks the settings and the bundle, logs what is served, and serves it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING

from app.address import url_of
from app.process import configure_logging, exit_on_signals

if TYPE_CHECKING:
    from app.contract import Bundle
    from app.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped; returns 0 after a stop by signal, 1 if it could not start."""
    exit_on_signals()
    # With these, prometheus_client counts in shared files; only the supervisor may set them.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    from app import featurestore, predictionlog
    from app.contract import BundleError, read_bundle
    from app.predictor import load
    from app.server import ListenError, listen, serve
    from app.settings import SettingsError, environment_help, read_settings
    from app.supervisor import Supervisor

    argparse.ArgumentParser(
        prog="python -m app",
        description="Serve a model bundle over HTTP. Everything is set by environment variables:",
        epilog=environment_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(arguments)
    try:
        settings = read_settings()
        configure_logging(settings.log_format)
        bundle = read_bundle(settings.model_dir)
        if settings.prediction_log:
            predictionlog.check(settings, bundle.manifest)
        if settings.feature_store:
            featurestore.check(settings, bundle.manifest)
        if settings.workers == 1:
            listener = listen(settings)
            _announce(settings, bundle)
            serve(settings, bundle, listener)
            return 0
        # Loaded here once, so that a broken model is reported once and not by each worker.
        load(bundle)
        with Supervisor(settings, bundle, listen(settings)) as supervisor:
            _announce(settings, bundle)
            return supervisor.run()
    except (SettingsError, BundleError, ListenError) as error:
        # Plain text, because the log's style may be the invalid setting.
        print(f"error: {error}", file=sys.stderr)
        return 1


def _announce(settings: Settings, bundle: Bundle) -> None:
    manifest = bundle.manifest
    fields = {
        "model": manifest.name,
        "version": manifest.version,
        "digest": manifest.digest,
        "algorithm": manifest.algorithm,
        "host": settings.host,
        "port": settings.port,
        "workers": settings.workers,
    }
    text = f"{manifest.name}, version {manifest.version}, {manifest.digest}, on {url_of(settings.host, settings.port)}"
    logging.getLogger("app").info("serving %s", text, extra={"fields": fields})


if __name__ == "__main__":
    sys.exit(main())

"""`python -m app`: checks everything that can be wrong, says what is served, and serves it."""

from __future__ import annotations

import argparse
import logging
import sys

from app.contract import Bundle, BundleError, read_bundle
from app.logs import configure_logging
from app.predictionlog import check
from app.predictor import Layout, Predictor
from app.server import ListenError, listen, serve
from app.settings import Settings, SettingsError, environment_help, read_settings
from app.supervisor import Supervisor

_log = logging.getLogger("app")


def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped.

    Returns:
        The exit status: 0 after a stop by signal, 1 when it could not start.
    """
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
        if settings.workers > 1:
            # Once here, so that a model that cannot run is one line and not one from each worker.
            Predictor(bundle.model, Layout.of(bundle.manifest.features))
        if settings.prediction_log:
            check(settings, bundle.manifest)
        listener = listen(settings)
        _announce(settings, bundle)
        if settings.workers > 1:
            return Supervisor(settings, bundle, listener).run()
        serve(settings, bundle, listener)
    except (SettingsError, BundleError, ListenError) as error:
        # Plain, because the style of the log may be what could not be read.
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _announce(settings: Settings, bundle: Bundle) -> None:
    manifest = bundle.manifest
    _log.info(
        "serving %s, version %s, %s, on http://%s:%s",
        manifest.name,
        manifest.version,
        manifest.digest,
        settings.host,
        settings.port,
        extra={
            "fields": {
                "model": manifest.name,
                "version": manifest.version,
                "digest": manifest.digest,
                "algorithm": manifest.algorithm,
                "host": settings.host,
                "port": settings.port,
                "workers": settings.workers,
            }
        },
    )


if __name__ == "__main__":
    sys.exit(main())

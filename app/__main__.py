"""`python -m app`: checks everything that can be wrong, says what is served, and serves it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING

from app.address import url_of
from app.signals import exit_on_signals

if TYPE_CHECKING:
    from app.contract import Bundle
    from app.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped.

    Returns:
        The exit status: 0 after a stop by signal, 1 when it could not start.
    """
    exit_on_signals()
    # prometheus_client counts in shared files if it finds these; only the supervisor decides that.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    from app.contract import BundleError, Layout, read_bundle
    from app.logs import configure_logging
    from app.predictionlog import check
    from app.predictor import Predictor
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
            check(settings, bundle.manifest)
        if settings.workers == 1:
            listener = listen(settings)
            _announce(settings, bundle)
            serve(settings, bundle, listener)
            return 0
        # Once here, so that a model that cannot run is one line and not one from each worker.
        Predictor(bundle.model, Layout.of(bundle.manifest.features))
        with Supervisor(settings, bundle, listen(settings)) as supervisor:
            _announce(settings, bundle)
            return supervisor.run()
    except (SettingsError, BundleError, ListenError) as error:
        # Plain, because the style of the log may be what could not be read.
        print(f"error: {error}", file=sys.stderr)
        return 1


def _announce(settings: Settings, bundle: Bundle) -> None:
    manifest = bundle.manifest
    logging.getLogger("app").info(
        "serving %s, version %s, %s, on %s",
        manifest.name,
        manifest.version,
        manifest.digest,
        url_of(settings.host, settings.port),
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

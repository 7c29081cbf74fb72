"""`python -m api`: one API process. Settings come from the environment (docs/settings.md)."""

import gc
import signal
import sys
from functools import partial

import structlog
import uvicorn

from api.app import create_app
from api.connections import Connections, Protocol
from infra.blob_open import open_blobs
from infra.db import Database
from infra.errors import KindredError
from infra.settings import Settings
from infra.telemetry import configure_logging, serve_metrics

_log = structlog.get_logger("api")


def main() -> int:
    """Serve until SIGTERM, then finish what is in hand. Returns the exit status."""
    try:
        settings = Settings.from_env()
        configure_logging(settings.log, settings.log_level)
        if settings.database_url is None:
            print(
                "DATABASE_URL is not set. `kindred up` runs the API with a database of its own; "
                "to run the API alone, set DATABASE_URL.",
                file=sys.stderr,
            )
            return 2
        database = Database(settings.database_url, direct_url=settings.direct_database_url, ingest=2, fair=True)
        app = create_app(settings, database, open_blobs(settings.blob_url))
        metrics = serve_metrics(settings.metrics_port, settings.host) if settings.metrics_port else None
    except KindredError as error:
        print(f"{error.title}: {error.detail}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"The metrics port cannot be used: {error.strerror}. Set KINDRED_METRICS_PORT.", file=sys.stderr)
        return 2
    # What is loaded by now stays: the collector need not look at it again. A bulk call makes 10,000 items that all
    # live until it ends; with the usual thresholds the collector walks them some fifty times and finds nothing.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    # A bulk call makes its rows in a thread; with the usual 5 ms the loop would wait as long for each of its turns.
    sys.setswitchinterval(0.0005)
    connections = Connections(trusted=settings.trusted_proxies, most=settings.connections_per_address)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            # uvicorn calls it as it would call its own class.
            http=partial(Protocol, connections),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            timeout_graceful_shutdown=20,
        )
    )
    # The server raises the signal that ended it once more when all is drained; the default would kill us there.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        server.run()
    finally:
        if metrics is not None:
            metrics.close()
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())

"""`python -m api`: serve HTTP with the settings of the environment."""

import argparse
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from api.main import create_app
from api.protocol import BoundedHttp
from api.strangers import Connections
from core import log
from core.settings import Settings
from models import schema

_KEEP_ALIVE_SECONDS = 30
_SHUTDOWN_SECONDS = 5
"""Downloads under way are cut after this long, so that a stop takes less than ten seconds."""


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--fd", type=int, metavar="N", help="serve on this inherited, bound socket")
    args = parser.parse_args()
    settings = Settings()
    log.configure(settings, process="api")
    schema.check_or_exit(settings.resolved_database_url)
    server = Server(server_config(settings, create_app(settings)))
    server.run(sockets=None if args.fd is None else [socket.socket(fileno=args.fd)])


class Server(uvicorn.Server):
    """Tells open streams to end when the process is told to; uvicorn alone would wait for them, and then cut them."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to stop has come."""
        app = self.config.app
        assert isinstance(app, FastAPI)
        if hasattr(app.state, "parts"):  # else it was still starting
            app.state.parts.stopping.set()
        super().handle_exit(sig, frame)


def server_config(settings: Settings, app: ASGIApp) -> uvicorn.Config:
    """How uvicorn serves: fast parts, trust in named proxies alone, bounds on what an idle caller can hold."""
    connections = Connections(
        most=settings.max_connections,
        most_per_address=settings.max_connections_per_address,
        shared=settings.trusted_proxies,
    )
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=BoundedHttp.within(connections),
        ws="none",
        lifespan="on",
        # Who calls is told by the key alone. X-Forwarded-For and -Proto are anybody's claim, unless a proxy that the
        # operator named makes it; they reach the audit log and Strict-Transport-Security, and nothing else.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        server_header=False,
        access_log=False,
        log_level=settings.log_level,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


if __name__ == "__main__":
    main()

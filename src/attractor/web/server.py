"""The server that runs the application until it is told to end."""

from __future__ import annotations

import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

BACKLOG = 2048  # requests that may wait
LONGEST_END = 2  # seconds that requests under way have when the server ends


class Server(uvicorn.Server):
    """A server that does not wait for pages, which listen to events for ever."""

    def __init__(self, app: FastAPI) -> None:
        """Prepare to run an application of `attractor.web.app`."""
        quiet = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=LONGEST_END
        )
        super().__init__(quiet)
        self.events = app.state.events

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the streams of events, and then everything else."""
        self.events.end()
        super().handle_exit(sig, frame)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens, so that whoever starts a server sees at once whether the port is free.

    Raises:
        OSError: if it is not, or the address cannot be used.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)  # requests wait from now on, until they are answered
    except OSError:
        listener.close()
        raise
    return listener

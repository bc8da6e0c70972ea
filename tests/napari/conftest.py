"""A server in this process that has a session of three images open, and a client and a viewer without a window."""

import threading

import numpy as np
import pytest
from tests.web.conftest import LABELS, TOKEN, session_in

from attractor.napari.client import Client
from attractor.session import Session
from attractor.web.app import create_app
from attractor.web.server import Server, listening


@pytest.fixture
def folder(tmp_path):
    return session_in(tmp_path)


@pytest.fixture
def session(folder):
    with Session(folder) as session:
        yield session


@pytest.fixture
def address(session):
    listener = listening("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = Server(create_app(session, token=TOKEN, port=port, device="cpu"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{port}/#token={TOKEN}"
    server.events.end()
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def client(address):
    with Client(address) as client:
        yield client


@pytest.fixture
def viewer():
    components = pytest.importorskip("napari.components", reason="napari is not installed: pip install napari")
    return components.ViewerModel()


@pytest.fixture
def pixels():
    """A picture in which there is something to see."""
    return np.where(LABELS > 0, 180, 20).astype(np.uint8)

"""`attractor correct` and `attractor serve`: the page on which people look at objects and correct them."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from attractor.cli.app import Device
from attractor.cli.printing import say
from attractor.errors import InputError
from attractor.wording import install

Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 lets other machines in.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")]


def correct(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE|FOLDER...", help="Images to correct, or the folder of a session.", show_default=False
        ),
    ],
    model: Annotated[str, typer.Option(metavar="MODEL", help="Finds the objects at first.")] = "nuclei",
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the session is kept.")] = Path("project"),
    host: Host = "127.0.0.1",
    port: Port = 8765,
    browser: Browser = True,
    device: Device = "auto",
) -> None:
    """Find the objects of images, and correct them on a page in the browser, which also trains."""
    _check_installed()
    from attractor.datasets.session import SessionImages
    from attractor.session import Session

    if len(images) == 1 and SessionImages.recognises(images[0]):
        return _serve(images[0], host, port, browser=browser, device=device)
    if SessionImages.recognises(out):
        raise InputError(f"{out}: is a session already; open it by attractor correct {out}, or give another --out.")
    from attractor.description import find_model, read_description

    names = read_description(find_model(model)).class_names
    with Session.create(out, images, model=_kept(model), class_names=names) as session:
        say(f"{len(session.images)} images are in {out}.")
    _serve(out, host, port, browser=browser, device=device, segments=True)


def serve(
    project: Annotated[
        Path, typer.Argument(metavar="PROJECT", help="Folder of a session; it is made if there is none.")
    ] = Path("project"),
    model: Annotated[str, typer.Option(metavar="MODEL", help="Finds the objects in a new session.")] = "nuclei",
    models: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Models to choose from, besides those that come with attractor."),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8765,
    name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name of this machine, by which pages may call it.")
    ] = None,
    quota: Annotated[
        float | None,
        typer.Option(metavar="GB", min=0, help="Most gigabytes that images may take; without it, no limit."),
    ] = None,
    trash_days: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="Delete removed images for good after so long; without it, never."),
    ] = None,
    browser: Browser = False,
    device: Device = "auto",
    until_input_ends: Annotated[
        bool, typer.Option("--until-input-ends", help="End when stdin does: with the program that started this.")
    ] = False,
) -> None:
    """Serve the page and the HTTP API of a session, for instance on a lab's machine."""
    _check_installed()
    if until_input_ends:
        threading.Thread(target=_end_with_input, daemon=True).start()
    from attractor.datasets.session import SessionImages
    from attractor.session import Session
    from attractor.session.models import models_of_folder

    others = () if models is None else tuple(models_of_folder(models))
    if not SessionImages.recognises(project):
        from attractor.description import find_model, read_description

        names = read_description(find_model(model)).class_names
        Session.create(project, [], model=_kept(model), class_names=names).close()
    limits = {"quota": None if quota is None else round(1e9 * quota), "trash_days": trash_days}
    _serve(project, host, port, browser=browser, device=device, names=tuple(name or ()), models=others, limits=limits)


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1 << 10):  # sys.stdin.read would hold a lock that Python needs when it ends
        pass
    signal.raise_signal(signal.SIGTERM)


def _kept(model: str) -> str:
    """A model as a session keeps it: by name, or by a path that does not depend on the folder one is in."""
    from attractor.weights import MODELS

    return model if model in MODELS else str(Path(model).resolve())


def _check_installed() -> None:
    missing = [name for name in ("fastapi", "uvicorn", "python_multipart") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"The page needs {', '.join(missing)}, which is not installed. {install('serve')}")


def _serve(
    folder: Path,
    host: str,
    port: int,
    *,
    browser: bool,
    device: str,
    segments: bool = False,
    names: tuple[str, ...] = (),
    models: tuple[str, ...] = (),
    limits: Mapping[str, Any] | None = None,
) -> None:
    """Answer requests until Ctrl-C."""
    from attractor.session import Session
    from attractor.web.app import create_app
    from attractor.web.security import HOSTS, new_token
    from attractor.web.server import Server, listening

    try:
        listener = listening(host, port)
    except OSError as error:
        raise InputError(f"Port {port} of {host} cannot be used ({error.strerror}); give another --port.") from error
    with listener, Session(folder, models=models) as session:
        port, token = listener.getsockname()[1], new_token()
        hosts = (*names, host, socket.gethostname())
        app = create_app(
            session, token=token, port=port, hosts=hosts, device=device, segments=segments, **(limits or {})
        )
        shown = host if host not in ("0.0.0.0", "::") else names[0] if names else socket.gethostname()
        address = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/#token={token}"
        say(f"Open {address}")
        if host not in HOSTS:
            say("Whoever knows this address can change the session. On an open network, put TLS in front of it.")
        say("Ctrl-C ends it; everything is kept.")
        with opened(address, folder) if browser else nullcontext():
            Server(app).run(sockets=[listener])


@contextmanager
def opened(address: str, folder: Path) -> Iterator[None]:
    """Open an address in the browser, by way of a file that only this person can read.

    The address has the token, and what stands on a command line is seen by everybody on the machine.
    """
    from attractor.images import temporary_folder

    with temporary_folder(folder) as hidden:
        file = hidden / "open.html"
        descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as page:
            page.write(f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={address}">')
        webbrowser.open(file.resolve().as_uri())
        yield

"""Who may ask what: one secret token, known hosts, and nothing from other pages.

A browser sends requests to this server on behalf of any page that the user has open, and any name can be made to mean
127.0.0.1. So a request needs the token, its host must be one of ours, and it must come from our own page if it changes
anything.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from typing import Any, TypeAlias

from fastapi import HTTPException, Request, Response

HOSTS = ("localhost", "127.0.0.1", "[::1]", "::1")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # OpenSeadragon sets styles of its own elements
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "worker-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
LARGEST_OF_STRANGERS = 1 << 12  # bytes of a body
OURS = ("same-origin", "none")  # what a browser says of requests from our page, and of addresses typed by hand

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


def new_token() -> str:
    """A token that nobody can guess: 32 random bytes, as text."""
    return secrets.token_urlsafe(32)


class Guard:
    """Checks requests by a token, which a page swaps for a cookie once."""

    def __init__(self, token: str, port: int) -> None:
        """Keep the token; the port is in the cookie's name, because cookies do not tell ports apart."""
        self.token, self.cookie = token, f"attractor-{port}"

    def allowed(self, request: Request) -> None:
        """Refuse a request without the token, and one that changes something but comes from another page."""
        if not self.knows(request):
            raise HTTPException(401, "This needs the token from the address that attractor printed when it started.")
        self.from_here(request)

    def knows(self, request: Request) -> bool:
        """Whether a request has the token."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.cookies.get(self.cookie, "")
        return self._is_token(given)

    def from_here(self, request: Request) -> None:
        """Refuse a request that changes something but comes from another page."""
        if request.method in ("GET", "HEAD"):
            return
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        is_ours = site in OURS if site is not None else origin is None or origin == _own_origin(request)
        if not is_ours:
            raise HTTPException(403, "Requests from other pages may not change anything.")

    def let_in(self, given: str, response: Response) -> None:
        """Swap the token for a cookie that scripts cannot read and other pages' requests do not carry."""
        if not self._is_token(given):
            raise HTTPException(401, "That is not the token that attractor printed when it started.")
        response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())


def _own_origin(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host', '')}"


class Door:
    """Turns requests away before their bodies are read: large ones, and those without the token that bring one."""

    def __init__(self, app: Application, guard: Guard, largest: int, uploads: Collection[str]) -> None:
        """Wrap an application; only uploads to some paths may be larger than a number of bytes.

        Whoever has no token may send little more than a token.
        """
        self.app, self.guard, self.largest, self.uploads = app, guard, largest, uploads

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or turn away."""
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            request = Request(scope)
            length, is_upload = request.headers.get("content-length"), scope["path"] in self.uploads
            if is_upload and not self.guard.knows(request):
                return await Response("", 401)(scope, receive, send)
            most = self.largest if self.guard.knows(request) else LARGEST_OF_STRANGERS
            if not is_upload and (length is None or not length.isdecimal() or int(length) > most):
                if scope["method"] != "DELETE" or length is not None:
                    return await Response("", 413 if length else 411)(scope, receive, send)
        await self.app(scope, receive, send)


class SafeHeaders:
    """Adds headers to every answer by which a browser runs nothing but our own scripts."""

    def __init__(self, app: Application, extra: Sequence[tuple[str, str]] = ()) -> None:
        """Wrap an application."""
        self.app = app
        self.headers = [(name.encode(), value.encode()) for name, value in [*HEADERS.items(), *extra]]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, with the headers."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self.headers]
            await send(message)

        await self.app(scope, receive, with_headers)

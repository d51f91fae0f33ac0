"""Checks of every request, and the headers of every response."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from restain.database import StoreFault
from restain.web.errors import RequestError

HEADERS = {
    # Pages hold no inline script or style. OpenSeadragon decodes tiles as blobs.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With "no-referrer" a browser would send forms with the origin "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
LONGEST_URL = 4096
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
Handler = Callable[[Request], Awaitable[Response]]


def security_middleware(
    hosts: tuple[str, ...],
    authenticate: Callable[[Request], Awaitable[Response | None]],
    error_response: Callable[[Request, RequestError], Response],
) -> Callable[[Request, Handler], Awaitable[Response]]:
    """The middleware: :func:`check_request`, then ``authenticate``, which may answer itself, then :data:`HEADERS`."""

    async def middleware(request: Request, call_next: Handler) -> Response:
        head = request.method == "HEAD"
        if head:
            # Answered as a GET; the server sends no body.
            request.scope["method"] = "GET"
        try:
            check_request(request, hosts)
            if request.method == "OPTIONS":
                response = Response(status_code=204, headers={"Allow": "GET, HEAD, OPTIONS, POST, PUT, DELETE"})
            else:
                response = await authenticate(request) or await call_next(request)
        except RequestError as error:
            response = error_response(request, error)
        except StoreFault:
            response = error_response(request, RequestError(503, "error.store"))
        if head:
            request.scope["method"] = "HEAD"
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.url.scheme == "https":
            response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        return response

    return middleware


def check_request(request: Request, hosts: tuple[str, ...]) -> None:
    """Refuse foreign host names (DNS rebinding), changes from other sites (CSRF) and overlong addresses.

    Raises:
        RequestError: 400, 403 or 414.
    """
    if len(request.url.path) + len(request.url.query) > LONGEST_URL:
        raise RequestError(414, "error.long_address")
    host = request.headers.get("host", "")
    if host_name(host) not in hosts:
        raise RequestError(400, "error.host")
    if request.method not in SAFE_METHODS:
        origin = request.headers.get("origin")
        same = origin is not None and _netloc(origin) == host
        if not same or request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise RequestError(403, "error.foreign")


async def read_body(request: Request, limit: int) -> bytes:
    """The body of a request. Raises RequestError 413 if it is longer than ``limit`` bytes."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise RequestError(413, "error.large_body", most=limit >> 20)
    return bytes(body)


def root_of(request: Request) -> str:
    """The path under which a proxy shows the server, without ``/`` at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def path_of(request: Request) -> str:
    """The path of a request without :func:`root_of`, by which it is routed."""
    # request.url.path also depends on the Host header.
    path, root = str(request.scope["path"]), root_of(request)
    return path[len(root) :] or "/" if path == root or path.startswith(f"{root}/") else path


def host_name(host: str) -> str | None:
    """The name or address in a Host header, without port; ``None`` if the header is malformed."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", host)
    return None if found is None else (found[1] or found[2]).lower()


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None

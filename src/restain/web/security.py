"""What is answered at all: to whom, how large, and what a browser may do with it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from restain.database import StoreFault
from restain.web.faults import Fault

HEADERS = {
    # Everything comes from this server, and no script or style stands in a page. OpenSeadragon decodes tiles as blobs.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": a browser then sends its forms with the origin "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
LONGEST_URL = 4096
SAFE = {"GET", "HEAD", "OPTIONS"}


def guard(
    hosts: tuple[str, ...],
    gate: Callable[[Request], Awaitable[Response | None]],
    answer: Callable[[Request, Fault], Response],
) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    """The middleware: checks a request (:func:`check`), asks ``gate`` who it is, and sets :data:`HEADERS`.

    ``gate`` may answer itself; ``answer`` puts a fault into a response.
    """

    async def middleware(request: Request, follow: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            check(request, hosts)
            response = await gate(request) or await follow(request)
        except Fault as fault:
            response = answer(request, fault)
        except StoreFault:
            response = answer(request, Fault(503, "fault.store"))
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return middleware


def check(request: Request, hosts: tuple[str, ...]) -> None:
    """Refuse foreign names (DNS rebinding), changes from foreign pages (CSRF) and addresses of absurd length.

    Raises:
        Fault: 400, 403 or 414.
    """
    if len(request.url.path) + len(request.url.query) > LONGEST_URL:
        raise Fault(414, "fault.long_address")
    host = request.headers.get("host", "")
    if host_name(host) not in hosts:
        raise Fault(400, "fault.host")
    if request.method not in SAFE:
        origin = request.headers.get("origin")
        same = origin is not None and _netloc(origin) == host
        if not same or request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Fault(403, "fault.foreign")


async def read_body(request: Request, most: int) -> bytes:
    """The body of a request, read no further than ``most`` bytes.

    Raises:
        Fault: 413, if it is longer.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Fault(413, "fault.large_body", most=most >> 20)
        parts.append(part)
    return b"".join(parts)


def host_name(host: str) -> str | None:
    """The name or address in a Host header; ``None`` if anything else stands there, which addresses would be read from."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", host)
    return None if found is None else (found[1] or found[2]).lower()


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None

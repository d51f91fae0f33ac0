"""What is answered at all: to whom, how large, and what a browser may do with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from restain.web.faults import Fault

HEADERS = {
    # Everything comes from this server, and no script or style stands in a page. OpenSeadragon decodes tiles as blobs.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
LONGEST_URL = 4096
SAFE = {"GET", "HEAD", "OPTIONS"}


def guard(
    hosts: tuple[str, ...], answer: Callable[[Request, Fault], Response]
) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    """The middleware: checks a request (:func:`check`) and sets :data:`HEADERS`; ``answer`` puts a fault into a response."""

    async def middleware(request: Request, follow: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            check(request, hosts)
            response = await follow(request)
        except Fault as fault:
            response = answer(request, fault)
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
    if _name(f"//{host}") not in hosts:
        raise Fault(400, "fault.host")
    if request.method not in SAFE:
        origin = request.headers.get("origin")
        same = origin is not None and urlsplit(origin).netloc == host
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


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None

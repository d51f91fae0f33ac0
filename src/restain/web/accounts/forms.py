"""Forms: what they hold, and the token that shows that they come from a page of this server's."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from restain.web.accounts.sessions import TOKEN_BYTES
from restain.web.faults import Fault
from restain.web.security import read_body

MOST_BYTES = 16 << 10
FIELD = "form"


def session_cookie(request: Request) -> str:
    """The name of the cookie with the session. Cookies know no ports, so that two servers of a machine need two names.

    Over TLS the prefix keeps other hosts of the domain from setting it.
    """
    secure = "__Host-" if request.url.scheme == "https" else ""
    return f"{secure}restain-{request.url.port or ''}"


def visitor_cookie(request: Request) -> str:
    """The name of the cookie that the sign-in form's token is made of, before there is a session."""
    return f"{session_cookie(request)}-visitor"


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    # It ends with the browser, and the session by the server's clock.
    response.set_cookie(name, value, httponly=True, samesite="lax", path="/", secure=request.url.scheme == "https")


def drop_cookie(request: Request, response: Response, name: str) -> None:
    response.delete_cookie(name, httponly=True, samesite="lax", path="/", secure=request.url.scheme == "https")


def form_token(cookie: str | None) -> str:
    """The token of forms for a browser with this cookie, which no other site can read; empty without a cookie."""
    if not cookie:
        return ""
    return hmac.new(cookie.encode("utf-8", "surrogatepass"), b"restain form", hashlib.sha256).hexdigest()


def new_visitor() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


async def read_form(request: Request, cookie: str | None) -> dict[str, str]:
    """The fields of a form that was sent.

    Raises:
        Fault: 403, if its token is not that of the browser's ``cookie``; 400 or 413, if it is no form.
    """
    body = await read_body(request, MOST_BYTES)
    try:
        fields = dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict"))
    except ValueError:
        raise Fault(400, "account.fault.form") from None
    expected = form_token(cookie)
    if not expected or not hmac.compare_digest(fields.get(FIELD, "").encode(), expected.encode()):
        raise Fault(403, "account.fault.form")
    return fields


def local(address: str | None, otherwise: str) -> str:
    """The address if it is one of this server's pages, as a browser would read it; no redirect leads elsewhere."""
    if not address or not address.startswith("/") or len(address) > 2000:
        return otherwise
    # Browsers take "//" and "/\" for another host, and leave out tabs and line ends.
    if address[1:2] in ("/", "\\") or any(ord(one) < 0x21 or ord(one) == 0x7F for one in address) or "\\" in address:
        return otherwise
    try:
        parts = urlsplit(address)
    except ValueError:
        return otherwise
    return otherwise if parts.scheme or parts.netloc else address

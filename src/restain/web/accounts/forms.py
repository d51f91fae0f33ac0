"""Forms, their CSRF tokens, and cookies."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from restain.web.errors import RequestError
from restain.web.security import read_body

MAX_BODY = 16 << 10
CSRF_FIELD = "csrf"


def session_cookie(request: Request) -> str:
    """The name of the session's cookie. Cookies ignore ports, so two servers on one machine need two names."""
    # Over TLS, the prefix keeps other hosts of the domain from setting the cookie.
    secure = "__Host-" if request.url.scheme == "https" else ""
    return f"{secure}restain-{request.url.port or ''}"


def visitor_cookie(request: Request) -> str:
    """The name of the cookie for the CSRF token of the sign-in form, before there is a session."""
    return f"{session_cookie(request)}-visitor"


def set_cookie(request: Request, response: Response, name: str, value: str | None) -> None:
    """Set a cookie that ends with the browser; None deletes it."""
    secure = request.url.scheme == "https"
    if value is None:
        response.delete_cookie(name, httponly=True, samesite="lax", path="/", secure=secure)
    else:
        response.set_cookie(name, value, httponly=True, samesite="lax", path="/", secure=secure)


def csrf_token(cookie: str | None) -> str:
    """The CSRF token for a browser with this cookie, which no other site can read; empty without a cookie."""
    if not cookie:
        return ""
    return hmac.new(cookie.encode("utf-8", "surrogatepass"), b"restain form", hashlib.sha256).hexdigest()


async def read_form(
    request: Request, cookie: str | None, most_fields: int = 20, *, csrf: bool = True
) -> dict[str, str]:
    """The fields of a submitted form; ``csrf`` says whether a token is needed, as it is wherever there are accounts.

    Raises:
        RequestError: 403 if the CSRF token does not belong to ``cookie``; 400 or 413 if it is not a form.
    """
    body = await read_body(request, MAX_BODY * (1 + most_fields // 100))
    try:
        fields = dict(
            parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=most_fields, errors="strict")
        )
    except ValueError:
        raise RequestError(400, "account.error.form") from None
    expected = csrf_token(cookie)
    if not csrf:
        return fields
    if not expected or not hmac.compare_digest(fields.get(CSRF_FIELD, "").encode(), expected.encode()):
        raise RequestError(403, "account.error.form")
    return fields


def local_path(address: str | None, default: str) -> str:
    """The address if a browser would read it as a page of this server, else ``default``: no open redirect."""
    if not address or not address.startswith("/") or len(address) > 2000:
        return default
    # Browsers read "//" and "/\" as another host, and drop tabs and line ends.
    if address[1:2] in ("/", "\\") or any(ord(one) < 0x21 or ord(one) == 0x7F for one in address) or "\\" in address:
        return default
    try:
        parts = urlsplit(address)
    except ValueError:
        return default
    return default if parts.scheme or parts.netloc else address

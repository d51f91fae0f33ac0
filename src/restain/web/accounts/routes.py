"""The pages of an account: sign in, sign out, change the password."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from restain.web import pages
from restain.web.accounts import passwords
from restain.web.accounts.account import account_of, home
from restain.web.accounts.authentication import SIGN_IN, Authentication
from restain.web.accounts.forms import csrf_token, local_path, read_form, session_cookie, set_cookie, visitor_cookie
from restain.web.accounts.rate_limit import RateLimit
from restain.web.accounts.sessions import TOKEN_BYTES
from restain.web.accounts.store import NoAccount, VerifiedAccount, account_key
from restain.web.errors import RequestError
from restain.web.security import root_of

MAX_HASHING, MAX_WAITING = 2, 20
"""Passwords that are hashed at a time, 64 MB each, and requests that wait for it."""
T = TypeVar("T")


def routes(authentication: Authentication) -> APIRouter:
    """The routes under ``/account``."""
    router = APIRouter(prefix="/account")
    rate_limit = RateLimit()
    hashing = _HashingQueue()

    @router.get("/sign-in")
    def sign_in_page(request: Request) -> Response:
        account, wanted = account_of(request), request.query_params.get("next")
        if account.role is not None:
            return _redirect(request, local_path(wanted, home(account)))
        return _sign_in_page(request, wanted)

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        wanted = request.query_params.get("next")
        name = ""
        try:
            form = await read_form(request, request.cookies.get(visitor_cookie(request)))
            name = form.get("name", "")[:200]
            verified = await verify(request, name, form.get("password", ""))
            token = await run_sync(authentication.sessions.begin, verified)
            if token is None:
                raise RequestError(401, "account.error.wrong")
        except RequestError as error:
            return _sign_in_page(request, wanted, error, name)
        # The browser's previous session ends; the new one has a token of its own.
        await run_sync(end_session, request)
        response = _redirect(request, local_path(wanted, home(verified.account)))
        set_cookie(request, response, session_cookie(request), token)
        set_cookie(request, response, visitor_cookie(request), None)
        return response

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        try:
            await read_form(request, request.cookies.get(session_cookie(request)))
        except RequestError as error:
            return pages.error_page(request, error)
        await run_sync(end_session, request)
        response = _redirect(request, f"{SIGN_IN}?out=1")
        set_cookie(request, response, session_cookie(request), None)
        # The next user of this browser finds no slide in its cache.
        response.headers["Clear-Site-Data"] = '"cache"'
        return response

    @router.get("")
    def account_page(request: Request) -> Response:
        return _account_page(request)

    @router.post("/password")
    async def change_password(request: Request) -> Response:
        account = account_of(request)
        try:
            form = await read_form(request, request.cookies.get(session_cookie(request)))
            new = form.get("new", "")
            if new != form.get("again", ""):
                raise RequestError(422, "account.error.differ")
            passwords.check_length(new)
            await verify(request, account.name, form.get("password", ""))
            stored = await hashing.run(lambda: authentication.accounts.set_password(account.name, new))
            token = await run_sync(authentication.sessions.begin, VerifiedAccount(account, stored))
        except NoAccount:
            return _redirect(request, SIGN_IN)
        except RequestError as error:
            return _account_page(request, error)
        response = _redirect(request, "/account?changed=1")
        if token is not None:
            set_cookie(request, response, session_cookie(request), token)
        return response

    async def verify(request: Request, name: str, password: str) -> VerifiedAccount:
        key, address = account_key(name), "" if request.client is None else request.client.host
        if seconds := rate_limit.attempt(key, address):
            raise RequestError(429, "account.error.wait", seconds=seconds)
        verified = await hashing.run(lambda: authentication.accounts.verify(name, password))
        if verified is None:
            raise RequestError(401, "account.error.wrong")
        rate_limit.succeeded(key, address)
        return verified

    def end_session(request: Request) -> None:
        if token := request.cookies.get(session_cookie(request)):
            authentication.sessions.end(token)

    return router


class _HashingQueue:
    """Runs work that needs much memory, a few at a time; waiting requests occupy no thread."""

    def __init__(self) -> None:
        self._limiter: CapacityLimiter | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Raises RequestError 503 if too many requests wait."""
        # Made here, since it belongs to the event loop.
        limiter = self._limiter = self._limiter or CapacityLimiter(MAX_HASHING)
        if limiter.statistics().tasks_waiting >= MAX_WAITING:
            raise RequestError(503, "account.error.busy")
        return await run_sync(work, limiter=limiter)


def _redirect(request: Request, path: str) -> Response:
    return RedirectResponse(f"{root_of(request)}{path}", 303)


def _sign_in_page(request: Request, wanted: str | None, error: RequestError | None = None, name: str = "") -> Response:
    cookie = request.cookies.get(visitor_cookie(request)) or secrets.token_urlsafe(TOKEN_BYTES)
    response = pages.page(
        request,
        "account_sign_in.html.j2",
        200 if error is None else error.status,
        error=error,
        visitor_token=csrf_token(cookie),
        name=name,
        next=local_path(wanted, ""),
        signed_out=request.method == "GET" and request.query_params.get("out") == "1",
    )
    set_cookie(request, response, visitor_cookie(request), cookie)
    if error is not None and error.status == 429:
        response.headers["Retry-After"] = str(error.values["seconds"])
    return response


def _account_page(request: Request, error: RequestError | None = None) -> Response:
    if not account_of(request).name:
        return pages.error_page(request, RequestError(404, "error.no_page"))
    return pages.page(
        request,
        "account.html.j2",
        200 if error is None else error.status,
        error=error,
        changed=request.method == "GET" and request.query_params.get("changed") == "1",
        least=passwords.SHORTEST,
    )

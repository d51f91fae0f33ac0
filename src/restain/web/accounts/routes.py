"""The pages of an account: signing in and out, another password."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from restain.web import pages
from restain.web.accounts import passwords
from restain.web.accounts.forms import (
    drop_cookie,
    form_token,
    local,
    new_visitor,
    read_form,
    session_cookie,
    set_cookie,
    visitor_cookie,
)
from restain.web.accounts.gate import SIGN_IN, Gate
from restain.web.accounts.roster import Known, NoAccount, key_of
from restain.web.accounts.throttle import Throttle
from restain.web.faults import Fault
from restain.web.identity import account_of, home

AT_ONCE, WAITING = 2, 20
"""Passwords that are checked at a time, each in 64 MB, and requests that wait for that."""
T = TypeVar("T")


def routes(gate: Gate) -> APIRouter:
    """The routes under ``/account``."""
    router = APIRouter(prefix="/account")
    throttle = Throttle()
    line = _Line()

    @router.get("/sign-in")
    def sign_in_page(request: Request) -> Response:
        account, asked = account_of(request), request.query_params.get("next")
        if account.role is not None:
            return RedirectResponse(local(asked, home(account)), 303)
        return _sign_in(request, asked)

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        asked = request.query_params.get("next")
        name = ""
        try:
            given = await read_form(request, request.cookies.get(visitor_cookie(request)))
            name, password = given.get("name", "")[:200], given.get("password", "")
            known = await checked(request, name, password)
            token = await run_sync(gate.sessions.begin, known)
            if token is None:
                raise Fault(401, "account.fault.wrong")
        except Fault as fault:
            return _sign_in(request, asked, fault, name)
        # A session that this browser had before is over; the one that begins has a token of its own.
        await run_sync(end_session, request)
        response = RedirectResponse(local(asked, home(known.account)), 303)
        set_cookie(request, response, session_cookie(request), token)
        drop_cookie(request, response, visitor_cookie(request))
        return response

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        try:
            await read_form(request, request.cookies.get(session_cookie(request)))
        except Fault as fault:
            return pages.fault_page(request, fault)
        await run_sync(end_session, request)
        response = RedirectResponse(f"{SIGN_IN}?out=1", 303)
        drop_cookie(request, response, session_cookie(request))
        # Who sits here next finds no slide in the browser's memory.
        response.headers["Clear-Site-Data"] = '"cache"'
        return response

    @router.get("")
    def account_page(request: Request) -> Response:
        return _account(request)

    @router.post("/password")
    async def password(request: Request) -> Response:
        account = account_of(request)
        try:
            given = await read_form(request, request.cookies.get(session_cookie(request)))
            if given.get("new", "") != given.get("again", ""):
                raise Fault(422, "account.fault.differ")
            passwords.check_length(given.get("new", ""))
            await checked(request, account.name, given.get("password", ""))
            kept = await line.run(lambda: gate.roster.set_password(account.name, given["new"]))
            token = await run_sync(gate.sessions.begin, Known(account, kept))
        except NoAccount:
            return RedirectResponse(SIGN_IN, 303)
        except Fault as fault:
            return _account(request, fault)
        response = RedirectResponse("/account?changed=1", 303)
        if token is not None:
            set_cookie(request, response, session_cookie(request), token)
        return response

    async def checked(request: Request, name: str, password: str) -> Known:
        key, address = key_of(name), "" if request.client is None else request.client.host
        if seconds := throttle.attempt(key, address):
            raise Fault(429, "account.fault.wait", seconds=seconds)
        known = await line.run(lambda: gate.roster.check(name, password))
        if known is None:
            raise Fault(401, "account.fault.wrong")
        throttle.succeeded(key, address)
        return known

    def end_session(request: Request) -> None:
        if token := request.cookies.get(session_cookie(request)):
            gate.sessions.end(token)

    return router


class _Line:
    """Runs what takes much memory, a few at a time; those that wait hold up no thread."""

    def __init__(self) -> None:
        self._limiter: CapacityLimiter | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Raises Fault 503 if too many wait."""
        # Made here, since it belongs to the event loop.
        limiter = self._limiter = self._limiter or CapacityLimiter(AT_ONCE)
        if limiter.statistics().tasks_waiting >= WAITING:
            raise Fault(503, "account.fault.busy")
        return await run_sync(work, limiter=limiter)


def _sign_in(request: Request, asked: str | None, fault: Fault | None = None, name: str = "") -> Response:
    cookie = request.cookies.get(visitor_cookie(request)) or new_visitor()
    response = pages.page(
        request,
        "account_sign_in.html.j2",
        200 if fault is None else fault.status,
        fault=fault,
        form=form_token(cookie),
        name=name,
        asked=local(asked, ""),
        out=request.method == "GET" and request.query_params.get("out") == "1",
    )
    set_cookie(request, response, visitor_cookie(request), cookie)
    if fault is not None and fault.status == 429:
        response.headers["Retry-After"] = str(fault.values["seconds"])
    return response


def _account(request: Request, fault: Fault | None = None) -> Response:
    if not account_of(request).name:
        return pages.fault_page(request, Fault(404, "fault.no_page"))
    changed = request.method == "GET" and request.query_params.get("changed") == "1"
    return pages.page(
        request,
        "account.html.j2",
        200 if fault is None else fault.status,
        fault=fault,
        changed=changed,
        least=passwords.SHORTEST,
    )

"""Authentication of every request."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from restain.database import Database
from restain.errors import RestainError
from restain.web.accounts.account import ANONYMOUS, LOCAL_OWNER, Account, home, may_open
from restain.web.accounts.forms import session_cookie
from restain.web.accounts.sessions import Sessions
from restain.web.accounts.store import AccountStore
from restain.web.errors import RequestError
from restain.web.security import path_of, root_of

SIGN_IN = "/account/sign-in"


class Authentication:
    """Finds the account of a request and checks what its role may open.

    Without any account, everyone is the owner, unless accounts are ``required``. After the first account was seen,
    signing in stays required until the server restarts.

    Raises:
        RestainError: if accounts are required and there is none.
    """

    def __init__(self, database: Database, *, required: bool) -> None:
        self.accounts, self.sessions = AccountStore(database), Sessions(database)
        if required and not self.accounts.any():
            raise RestainError(
                "Other machines can reach this server, and it has no account yet; create one with 'restain accounts add "
                "FOLDER NAME --role owner' (with the --state or --database of the server)."
            )
        self._required = required

    async def __call__(self, request: Request) -> Response | None:
        """Set ``request.state.account``; a redirect if the browser must sign in first.

        Raises:
            RequestError: 401 if nobody is signed in, 403 if the role may not open the address.
        """
        path, root = path_of(request), root_of(request)
        token = request.cookies.get(session_cookie(request))
        request.state.account = account = await run_in_threadpool(self._account, token)
        if may_open(account, path):
            return None
        if account is not ANONYMOUS:
            if path == "/":
                return RedirectResponse(f"{root}{home(account)}", 303)
            raise RequestError(403, "error.not_yours")
        reads = request.method in ("GET", "HEAD")
        if path.startswith("/api/") or not (reads or "text/html" in request.headers.get("accept", "")):
            raise RequestError(401, "error.sign_in")
        wanted = f"{path}?{request.url.query}" if request.url.query else path
        query = {"next": wanted} if reads and wanted != "/" else {}
        if (language := request.query_params.get("lang")) is not None:
            query["lang"] = language
        return RedirectResponse(f"{root}{SIGN_IN}?{urlencode(query)}" if query else f"{root}{SIGN_IN}", 303)

    def _account(self, token: str | None) -> Account:
        if token and (account := self.sessions.account(token)) is not None:
            self._required = True
            return account
        self._required = self._required or self.accounts.any()
        return ANONYMOUS if self._required else LOCAL_OWNER

"""Who asks: at every request, before anything else is looked at."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from restain.database import Database
from restain.errors import RestainError
from restain.web.accounts.forms import session_cookie
from restain.web.accounts.roster import Roster
from restain.web.accounts.sessions import Sessions
from restain.web.faults import Fault
from restain.web.identity import NOBODY, SOMEBODY_HERE, Account, home, may_open

SIGN_IN = "/account/sign-in"


class Gate:
    """Finds the account behind a request, and keeps it to what its role may open.

    Without any account, whoever sits here is the owner, unless accounts are ``needed`` because others reach the server. Once
    an account was seen, one is demanded until the server is started again.

    Raises:
        RestainError: if accounts are needed and there are none.
    """

    def __init__(self, database: Database, *, needed: bool) -> None:
        self.roster, self.sessions = Roster(database), Sessions(database)
        if needed and not self.roster.any():
            raise RestainError(
                "Others can reach this server, and it has no account yet; 'restain accounts add FOLDER NAME --role owner' "
                "makes one (with the --state or --database of the server)."
            )
        self._closed = needed

    async def __call__(self, request: Request) -> Response | None:
        """Sets ``request.state.account``; a response where the browser is to go elsewhere first.

        Raises:
            Fault: 401 where nobody is signed in, 403 where the role may not open the address.
        """
        # Not request.url.path: that is read from the Host header too. This is what the routes are found by.
        path = request.scope["path"]
        request.state.account = account = await run_in_threadpool(
            self._account, request.cookies.get(session_cookie(request))
        )
        if may_open(account, path):
            return None
        if account is not NOBODY:
            if path == "/":
                return RedirectResponse(home(account), 303)
            raise Fault(403, "fault.not_yours")
        shown = request.method in ("GET", "HEAD")
        if path.startswith("/api/") or not (shown or "text/html" in request.headers.get("accept", "")):
            raise Fault(401, "fault.sign_in")
        asked = f"{path}?{request.url.query}" if request.url.query else path
        kept = {"next": asked} if shown and asked != "/" else {}
        if (language := request.query_params.get("lang")) is not None:
            kept["lang"] = language
        return RedirectResponse(f"{SIGN_IN}?{urlencode(kept)}" if kept else SIGN_IN, 303)

    def _account(self, token: str | None) -> Account:
        if token and (account := self.sessions.account(token)) is not None:
            self._closed = True
            return account
        if not self._closed:
            self._closed = self.roster.any()
        return NOBODY if self._closed else SOMEBODY_HERE

"""Who may come in: signing in and out, roles, and those who try without."""

import hashlib
import http.client
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import argon2
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from restain.cli import app as commands
from restain.errors import RestainError
from restain.web import create_app
from restain.web.accounts import passwords
from restain.web.accounts.account import ANONYMOUS, LOCAL_OWNER, READER_PATHS, Account, Role, may_open
from restain.web.accounts.forms import local_path
from restain.web.accounts.rate_limit import (
    FORGET_AFTER_S,
    FREE_AT_BLOCKED_ADDRESS,
    FREE_FAILURES,
    MAX_DELAY_S,
    MAX_ENTRIES,
    RateLimit,
)
from restain.web.accounts.store import AccountStore
from restain.web.database import FILE, open_database
from restain.web.serve import check_tls
from restain.web.settings import Settings

from .conftest import in_browser

HE = "block_1.ome.tiff"
PASSWORD, OTHER = "four words in a row", "quite another one"
HOSTILE = "<img src=x onerror=alert(1)>&'\""


def with_accounts(state: Path, **roles: Role) -> Path:
    state.mkdir(exist_ok=True)
    with closing(open_database(state)) as database:
        for name, role in roles.items():
            AccountStore(database).add(name, role, PASSWORD)
    return state


@pytest.fixture(scope="module")
def guarded(start, tmp_path_factory) -> Iterator:
    """A server with an owner, Anna, and two readers; tests that change an account make their own server."""
    state = with_accounts(tmp_path_factory.mktemp("guarded"), Anna=Role.OWNER, bo=Role.READER, chen=Role.READER)
    running = start(state)
    running.state = state
    yield running
    running.stop()


@pytest.fixture
def own(start, tmp_path) -> Iterator:
    state = with_accounts(tmp_path / "state", Anna=Role.OWNER, bo=Role.READER)
    running = start(state)
    running.state = state
    yield running
    running.stop()


class Browser(httpx.Client):
    """Keeps cookies, sends its origin, follows no redirect by itself."""

    def __init__(self, server) -> None:
        super().__init__(base_url=server.url, headers={"Origin": server.url, "Accept-Language": "en"}, timeout=30)
        self.cookie = f"restain-{server.port}"

    @property
    def token(self) -> str | None:
        return self.cookies.get(self.cookie)

    def send_form(self, page: str, action: str, **fields: str) -> httpx.Response:
        form = re.search(r'name="csrf" value="(\w*)"', self.get(page).text)
        return self.post(action, data={"csrf": form[1] if form else ""} | fields)

    def sign_in(self, name: str, password: str = PASSWORD, query: str = "") -> httpx.Response:
        address = f"/account/sign-in{query}"
        return self.send_form(address, address, name=name, password=password)

    def sign_out(self) -> httpx.Response:
        return self.send_form("/account", "/account/sign-out")

    def change(self, password: str, new: str, again: str | None = None) -> httpx.Response:
        again = new if again is None else again
        return self.send_form("/account", "/account/password", password=password, new=new, again=again)

    def comes_in(self) -> bool:
        return self.get("/account").status_code == 200


def signed_in(server, name: str = "Anna", password: str = PASSWORD) -> Browser:
    browser = Browser(server)
    assert browser.sign_in(name, password).status_code == 303
    assert browser.comes_in()
    return browser


def stored(state: Path, statement: str, *values: object) -> list[tuple]:
    with closing(sqlite3.connect(state / FILE)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def addresses(server) -> list[str]:
    """Every address of the application but static files, filled in."""
    app = create_app(Settings(server.folder, server.state / "routes"))
    found = app.openapi()["paths"]
    filled = {"identity": server.id_of(HE), "level": "0", "column": "0", "row": "0", "which": "label"}
    return sorted(re.sub(r"\{(\w+)(:\w+)?\}", lambda m: filled.get(m[1], "x"), path) for path in found)


def test_without_accounts_whoever_sits_here_is_the_owner(server):
    page = server.get("/")
    assert page.status_code == 200
    assert "sign-out" not in page.text
    assert server.get("/account").status_code == 404
    assert server.get("/account/sign-in").headers["location"] == "/"


def test_with_the_first_account_everything_is_closed_while_the_server_runs(start, tmp_path):
    running = start(tmp_path)
    try:
        assert running.get("/").status_code == 200
        with_accounts(tmp_path, Anna=Role.OWNER)
        assert running.get("/").status_code == 303
        assert running.image(HE, "thumbnail.jpg").status_code == 401
        # And stays so: that the last account went does not let everybody in.
        with closing(open_database(tmp_path)) as database:
            AccountStore(database).remove("Anna")
        assert running.get("/").status_code == 303
    finally:
        running.stop()


@pytest.mark.slow
def test_nobody_opens_anything_but_the_sign_in_page(guarded, folder):
    guarded.folder = folder
    asked = addresses(guarded)
    assert len(asked) > 12
    for address in asked:
        for method in ("GET", "POST", "PUT", "DELETE"):
            answer = httpx.request(
                method,
                guarded.url + address,
                headers={"Origin": guarded.url, "Accept": "text/html", "Accept-Language": "en"},
            )
            if address == "/account/sign-in":
                continue
            if address.startswith("/api/"):
                assert answer.status_code == 401, address
                assert "signed in" in answer.json()["error"]
            else:
                assert answer.status_code == 303, address
                assert urlsplit(answer.headers["location"]).path == "/account/sign-in"
    assert guarded.get("/static/style.css").status_code == 200
    assert guarded.get("/nothing-like-it").status_code == 303


def test_a_reader_opens_only_what_is_the_readers(guarded, folder):
    guarded.folder = folder
    bo = signed_in(guarded, "bo")
    closed = [one for one in addresses(guarded) if not one.startswith(READER_PATHS) and one != "/"]
    assert {f"/api/images/{guarded.id_of(HE)}/{what}" for what in ("annotations", "snapshot.png")} <= {*closed}
    for address in closed:
        for method in ("GET", "PUT", "POST", "DELETE"):
            answer = bo.request(method, address)
            assert answer.status_code == 403, address
            assert "may not open" in answer.text
    assert bo.get("/").headers["location"] == "/review"
    assert "Back to your studies" in bo.get(f"/view/{guarded.id_of(HE)}").text
    anna = signed_in(guarded)
    assert anna.get(f"/view/{guarded.id_of(HE)}").status_code == 200
    assert anna.get(f"/api/images/{guarded.id_of(HE)}/tiles/0/0/0.jpg").status_code == 200


@pytest.mark.parametrize(
    ("target", "host"),
    [
        *((one, "") for one in ("/review/../view/ID", "/static/../view/ID", "//view/ID", "/review%2f..%2fview/ID")),
        *((one, "") for one in ("/account/../api/images/ID/thumbnail.jpg", "/VIEW/ID", "/view/ID?x=/review/")),
        *((one, "") for one in ("/%2e/view/ID", "/review/..%2fview/ID", "/review\\..\\view/ID", "/view%2fID")),
        *((one, "/review?") for one in ("/view/ID", "/api/images/ID/thumbnail.jpg", "/")),
    ],
)
def test_no_spelling_of_an_address_gets_a_reader_past_the_gate(guarded, target: str, host: str):
    bo = signed_in(guarded, "bo")
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=10)
    headers = {"Host": f"127.0.0.1:{guarded.port}{host}", "Cookie": f"{bo.cookie}={bo.token}"}
    connection.request("GET", target.replace("ID", guarded.id_of(HE)), headers=headers)
    answer = connection.getresponse()
    assert answer.status in (303, 400, 403, 404)
    assert b"view-data" not in answer.read()


def test_roles_open_by_whole_names_only():
    reader = Account("bo", Role.READER)
    assert may_open(reader, "/review")
    assert may_open(reader, "/review/x")
    for path in ("/reviews", "/reviewer/x", "/api", "/api/images/x", "/", "", "/accounts", "review"):
        assert not may_open(reader, path)
    assert not may_open(ANONYMOUS, "/account")
    assert not may_open(ANONYMOUS, "/account/password")
    assert may_open(LOCAL_OWNER, "/view/x")


def test_the_cookie_is_random_closed_to_scripts_and_kept_as_a_digest(guarded):
    browser = Browser(guarded)
    sent = browser.sign_in("Anna").headers.get_list("set-cookie")
    cookie = next(one for one in sent if one.startswith(f"{browser.cookie}="))
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    assert "Expires" not in cookie
    token = browser.token
    assert len(token) == 43
    assert stored(
        guarded.state, "SELECT account FROM sessions WHERE digest = ?", hashlib.sha256(token.encode()).hexdigest()
    )
    for path in guarded.state.glob(f"{FILE}*"):
        assert token.encode() not in path.read_bytes()
        assert PASSWORD.encode() not in path.read_bytes()


def test_names_are_compared_without_capitals(guarded):
    for name in ("anna", " ANNA ", "Ａnna"):
        assert "Anna" in signed_in(guarded, name).get("/account").text


def test_a_session_that_somebody_else_chose_is_not_taken(guarded):
    browser = Browser(guarded)
    planted = "A" * 43
    browser.cookies.set(browser.cookie, planted, domain="127.0.0.1")
    browser.sign_in("Anna")
    tokens = [value for name, value in ((c.name, c.value) for c in browser.cookies.jar) if name == browser.cookie]
    assert tokens[-1] != planted
    attacker = Browser(guarded)
    attacker.cookies.set(attacker.cookie, planted)
    assert not attacker.comes_in()


def test_signing_in_again_ends_the_session_before(guarded):
    browser = signed_in(guarded)
    before = browser.token
    # The sign-in page does not show its form to somebody who is in; another tab may still hold it.
    page = Browser(guarded)
    form = re.search(r'name="csrf" value="(\w+)"', page.get("/account/sign-in").text)[1]
    for cookie in page.cookies.jar:
        browser.cookies.jar.set_cookie(cookie)
    browser.post("/account/sign-in", data={"csrf": form, "name": "Anna", "password": PASSWORD})
    assert browser.token != before
    assert browser.comes_in()
    browser.cookies.set(browser.cookie, before)
    old = Browser(guarded)
    old.cookies.set(old.cookie, before)
    assert not old.comes_in()


def test_a_cookie_that_was_tampered_with_is_nobody_s(guarded):
    token = signed_in(guarded).token
    digest = hashlib.sha256(token.encode()).hexdigest()
    wrong = [
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        token.swapcase(),
        token[:-1],
        token + "A",
        digest,
        "",
        "x" * 3000,
    ]
    wrong += ["' OR 1=1 --", "%00", '"', token + ";", "Anna"]
    for one in wrong:
        # The cookie as it stands, which a client would quote.
        answer = httpx.get(f"{guarded.url}/account", headers={"Cookie": f"restain-{guarded.port}={one}"})
        assert (answer.status_code == 200) == (one == token + ";"), one
    assert (
        httpx.get(f"{guarded.url}/account", headers={"Cookie": f"restain-{guarded.port + 1}={token}"}).status_code
        == 303
    )


def test_a_session_ends_when_idle_or_old_and_lives_while_it_is_used(own):
    def back(column: str, **ago: float) -> None:
        stored(own.state, f"UPDATE sessions SET {column} = ?", (datetime.now(UTC) - timedelta(**ago)).isoformat())

    browser = signed_in(own)
    back("seen", hours=11.9)
    assert browser.comes_in()
    assert stored(own.state, "SELECT seen FROM sessions")[0][0] > (datetime.now(UTC) - timedelta(minutes=2)).isoformat()
    back("created", days=6.9)
    assert browser.comes_in()
    back("created", days=7.01)
    assert not browser.comes_in()
    browser = signed_in(own)
    back("seen", hours=12.01)
    assert not browser.comes_in()
    signed_in(own)
    assert len(stored(own.state, "SELECT * FROM sessions")) == 1


def test_a_restart_of_the_server_keeps_sessions(start, tmp_path):
    running = start(with_accounts(tmp_path / "state", Anna=Role.OWNER))
    browser = signed_in(running)
    running.stop()
    again = start(tmp_path / "state", port=running.port)
    try:
        assert browser.comes_in()
    finally:
        again.stop()


def test_signing_out_ends_the_session_on_the_server(guarded):
    browser = signed_in(guarded)
    token = browser.token
    assert browser.get("/account/sign-out").status_code == 405
    assert browser.comes_in()
    answer = browser.sign_out()
    assert answer.headers["location"] == "/account/sign-in?out=1"
    assert browser.token is None
    browser.cookies.set(browser.cookie, token)
    assert not browser.comes_in()


def test_another_password_ends_all_other_sessions(own):
    here, there = signed_in(own), signed_in(own)
    assert here.change(PASSWORD, OTHER).headers["location"] == "/account?changed=1"
    assert here.comes_in()
    assert not there.comes_in()
    assert Browser(own).sign_in("Anna").status_code == 401
    signed_in(own, "Anna", OTHER)


def test_a_password_is_changed_by_who_knows_it_and_only_to_a_good_one(own):
    browser = signed_in(own)
    for present, new, again, status in (
        ("wrong wrong wrong", OTHER, OTHER, 401),
        (PASSWORD, OTHER, OTHER + "x", 422),
        (PASSWORD, "too short", "too short", 422),
        (PASSWORD, "x" * 201, "x" * 201, 422),
        (PASSWORD, "", "", 422),
    ):
        answer = browser.change(present, new, again)
        assert answer.status_code == status
        assert 'role="alert"' in answer.text
    assert browser.comes_in()
    signed_in(own)


def test_removal_and_a_new_password_from_the_command_line_end_sessions(own):
    anna, bo = signed_in(own), signed_in(own, "bo")
    with closing(open_database(own.state)) as database:
        accounts = AccountStore(database)
        accounts.set_password("anna", OTHER)
        accounts.remove("BO")
        for name in ("bo", "nobody", "\x00", "\udcff"):
            with pytest.raises(RestainError, match="no account"):
                accounts.remove(name)
        with pytest.raises(RestainError, match="already"):
            accounts.add("ANNA", Role.READER, PASSWORD)
        for name in ("", " ", "a\nb", "a\x00", "x" * 81, "\udcff"):
            with pytest.raises(RestainError, match="printable"):
                accounts.add(name, Role.READER, PASSWORD)
    assert not anna.comes_in()
    assert not bo.comes_in()
    assert Browser(own).sign_in("bo").status_code == 401


def test_a_form_without_its_own_token_changes_nothing(guarded):
    browser, other = Browser(guarded), Browser(guarded)
    foreign = re.search(r'name="csrf" value="(\w+)"', other.get("/account/sign-in").text)[1]
    browser.get("/account/sign-in")
    right = {"name": "Anna", "password": PASSWORD}
    for fields in (right, right | {"csrf": ""}, right | {"csrf": foreign}, right | {"csrf": "é"}):
        assert browser.post("/account/sign-in", data=fields).status_code == 403
    # Without the cookie there is no token either, not even an empty one.
    assert (
        httpx.post(f"{guarded.url}/account/sign-in", data=right | {"csrf": ""}, headers=browser.headers).status_code
        == 403
    )
    assert browser.token is None
    browser = signed_in(guarded)
    for form in ("", foreign):
        assert browser.post("/account/sign-out", data={"csrf": form}).status_code == 403
        fields = {"csrf": form, "password": PASSWORD, "new": OTHER, "again": OTHER}
        assert browser.post("/account/password", data=fields).status_code == 403
    assert browser.comes_in()


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "", "http://[", "http://127.0.0.1:1"])
def test_a_foreign_page_signs_nobody_in_or_out(guarded, origin: str):
    browser = signed_in(guarded)
    form = re.search(r'name="csrf" value="(\w+)"', browser.get("/account").text)[1]
    answer = browser.post("/account/sign-out", data={"csrf": form}, headers={"Origin": origin})
    assert answer.status_code == 403
    assert browser.comes_in()


def test_forms_keep_their_origin_and_tell_it_to_nobody_else(guarded):
    # With "no-referrer" a browser would send the origin "null" with its own forms.
    assert guarded.get("/account/sign-in").headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\xff", 400),
        (b"a=%ff", 400),
        (b"&".join(b"a=%d" % n for n in range(50)), 400),
        (b"x" * 20_000, 413),
        (b"", 403),
    ],
)
def test_a_malformed_or_giant_form_is_refused(guarded, body: bytes, status: int):
    browser = Browser(guarded)
    browser.get("/account/sign-in")
    answer = browser.post("/account/sign-in", content=body)
    assert answer.status_code == status
    assert 'role="alert"' in answer.text


def test_after_signing_in_the_page_that_was_asked_for_is_shown(guarded):
    browser = Browser(guarded)
    asked = f"/view/{guarded.id_of(HE)}?x=1&mode=side&q=%E6%9F%93"
    to = browser.get(asked).headers["location"]
    page = browser.get(to)
    action = re.search(r'action="([^"]+)"', page.text)[1].replace("&amp;", "&")
    form = re.search(r'name="csrf" value="(\w+)"', page.text)[1]
    back = browser.post(action, data={"csrf": form, "name": "Anna", "password": PASSWORD})
    assert parse_qs(urlsplit(back.headers["location"]).query) == parse_qs(urlsplit(asked).query)
    assert browser.get(back.headers["location"]).status_code == 200
    # Signed in already, the sign-in page leads on at once.
    assert browser.get(to).headers["location"] == back.headers["location"]
    assert Browser(guarded).sign_in("bo").headers["location"] == "/review"


ELSEWHERE = [
    *(
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example",
        "evil.example",
    ),
    *("/\t/evil.example", "/\n/evil.example", "javascript:alert(1)", " //evil.example", "//127.0.0.1@evil.example"),
    *("/%0a/evil.example\r\nSet-Cookie: a=b", "http:evil.example", "/" + "a" * 5000, "", "?x", "/\x00"),
]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_no_sign_in_leads_elsewhere(guarded, address: str):
    browser = Browser(guarded)
    answer = browser.sign_in("Anna", query=f"?{httpx.QueryParams({'next': address})}")
    if answer.status_code == 303:
        assert answer.headers["location"] == "/"
        assert "a=b" not in str(answer.headers)
    else:
        assert answer.status_code in (404, 414)
    assert "evil" not in str(httpx.get(f"{guarded.url}/account/sign-in", params={"next": address[:3000]}).headers)


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("/\\:@?#.\t\r\n"), max_size=30))
def test_an_address_is_local_as_browsers_read_it(tail: str):
    # Browsers leave out line ends and tabs, and take a backslash for a slash.
    read = re.sub(r"[\t\r\n]", "", local_path(f"/{tail}", "/")).strip("".join(map(chr, range(33)))).replace("\\", "/")
    assert urlsplit(urljoin("http://own.example/account/sign-in", read)).netloc == "own.example"


def test_an_unknown_name_is_told_and_costs_the_same_as_a_wrong_password(own, monkeypatch):
    checked = []

    class Spy:
        def __getattr__(self, name):
            return getattr(hasher, name)

        def verify(self, kept, password):
            checked.append(kept.split("$")[1:4])
            return hasher.verify(kept, password)

    hasher = passwords._hasher
    monkeypatch.setattr(passwords, "_hasher", Spy())
    answers = [Browser(own).sign_in(name, "wrong wrong wrong") for name in ("Anna", "zoe")]
    assert [answer.status_code for answer in answers] == [401, 401]
    said = [re.search(r'role="alert">([^<]+)', answer.text)[1] for answer in answers]
    assert said[0] == said[1]
    # Hashed once each, at the same costs.
    assert len(checked) == 2
    assert checked[0] == checked[1]
    assert not passwords.verify("nobody", None)


def test_guessing_is_slowed_down_whether_or_not_there_is_such_a_name(own):
    browser = Browser(own)
    for name in ("Anna", "zoe"):
        answers = [browser.sign_in(name, "wrong wrong wrong") for _ in range(FREE_FAILURES + 1)]
        assert [answer.status_code for answer in answers if answer.status_code != 429] == [401] * (
            FREE_FAILURES if name == "Anna" else FREE_AT_BLOCKED_ADDRESS
        )
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert "Too many" in answers[-1].text
    # The right password does not help while one has to wait.
    assert browser.sign_in("Anna").status_code == 429


def test_delays_grow_by_name_and_by_address_and_are_forgotten():
    now = [0.0]
    rate_limit = RateLimit(lambda: now[0])
    waits = []
    for number in range(30):
        while wait := rate_limit.attempt("anna", f"10.0.0.{number}"):
            waits.append(wait)
            now[0] += wait
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) == MAX_DELAY_S["name"]
    # One address that tries many names waits longer, but a new name may try twice: it can be a whole hospital's.
    for number in range(10):
        for _ in range(3):
            while wait := rate_limit.attempt(f"name {number}", "10.9.9.9"):
                now[0] += wait
    assert [rate_limit.attempt("new", "10.9.9.9") for _ in range(3)] == [0, 0, MAX_DELAY_S["address"]]
    assert rate_limit.attempt("new", "10.9.9.8") == 0
    now[0] += FORGET_AFTER_S + MAX_DELAY_S["address"]
    assert rate_limit.attempt("anna", "10.9.9.9") == 0


def test_of_many_attempts_at_once_no_more_are_tried_than_one_after_another():
    rate_limit = RateLimit(lambda: 0.0)
    assert [rate_limit.attempt("anna", "10.0.0.1") == 0 for _ in range(20)] == [True] * FREE_FAILURES + [False] * (
        20 - FREE_FAILURES
    )


def test_who_signs_in_rightly_does_not_wait_and_clears_nobody_else_s_failures():
    rate_limit = RateLimit(lambda: 0.0)
    for _ in range(50):
        assert rate_limit.attempt("anna", "10.0.0.1") == 0
        rate_limit.succeeded("anna", "10.0.0.1")
    for number in range(FREE_FAILURES):
        assert rate_limit.attempt(f"guess {number}", "10.0.0.1") == 0
    assert [rate_limit.attempt("anna", "10.0.0.1") > 0 for _ in range(3)] == [False, False, True]


def test_a_flood_of_names_and_addresses_keeps_the_memory_bounded():
    rate_limit = RateLimit(lambda: 0.0)
    for number in range(MAX_ENTRIES):
        rate_limit.attempt(f"name {number}", f"2001:db8:{number % 65536:x}:{number // 65536:x}::1")
    assert len(rate_limit) <= MAX_ENTRIES


def test_a_machine_s_ipv6_addresses_count_as_one():
    rate_limit = RateLimit(lambda: 0.0)
    tried = [rate_limit.attempt(f"name {number // 3}", f"2001:db8::{number:x}") for number in range(FREE_FAILURES + 1)]
    assert tried[-1] > 0


def test_an_older_hash_is_renewed_at_the_next_sign_in(own):
    old = argon2.PasswordHasher(time_cost=1, memory_cost=16, parallelism=1).hash(PASSWORD)
    stored(own.state, "UPDATE accounts SET password = ? WHERE key = 'anna'", old)
    browser = signed_in(own)
    kept = stored(own.state, "SELECT password FROM accounts WHERE key = 'anna'")[0][0]
    assert kept != old
    assert "m=8," in kept
    assert browser.comes_in()
    signed_in(own)


def test_today_s_costs_are_those_that_owasp_asks_for():
    hasher = argon2.PasswordHasher()
    assert hasher.type is argon2.Type.ID
    assert hasher.memory_cost >= 19 * 1024
    assert hasher.time_cost >= 2


def test_letters_that_a_keyboard_composes_otherwise_are_the_same_password():
    assert passwords.verify("cafe\u0301 au lait", passwords.hash_password("caf\u00e9 au lait"))


def test_names_are_shown_not_run(start, tmp_path):
    running = start(with_accounts(tmp_path / "state", **{HOSTILE: Role.OWNER}))
    try:
        page = signed_in(running, HOSTILE).get("/account").text
        assert "<img src=x" not in page
        assert "&lt;img src=x onerror=alert(1)&gt;" in page
        refused = Browser(running).sign_in(f"{HOSTILE}<script>alert(1)</script>\x00", "wrong wrong wrong")
        assert refused.status_code == 401
        assert "<script>alert" not in refused.text
    finally:
        running.stop()


def test_a_database_that_is_gone_is_told_and_lets_nobody_in(start, tmp_path):
    state = with_accounts(tmp_path / "state", Anna=Role.OWNER)
    running = start(state)
    try:
        browser = signed_in(running)
        for path in state.glob(f"{FILE}*"):
            path.write_bytes(b"not a database any more, whatever it was before" * 200)
        answer = browser.get(f"/api/images/{running.id_of(HE)}/annotations")
        assert answer.status_code == 503
        assert "database" in answer.json()["error"]
        assert str(tmp_path) not in answer.text
        assert browser.get("/").status_code == 503
        assert httpx.get(running.url).status_code in (303, 503)
    finally:
        running.stop()


def test_others_are_served_only_where_there_is_an_account(folder, tmp_path):
    with pytest.raises(RestainError, match="restain accounts add"):
        create_app(Settings(folder, tmp_path, behind_proxy=True))
    with_accounts(tmp_path, bo=Role.READER)
    create_app(Settings(folder, tmp_path, behind_proxy=True))


def command(*words: str, typed: str = ""):
    return CliRunner().invoke(commands, ["accounts", *words], input=typed)


def test_accounts_are_made_listed_and_removed_on_the_command_line(tmp_path):
    slides, state = tmp_path / "slides", tmp_path / "state"
    slides.mkdir()
    where = (str(slides), "--state", str(state))
    made = command("add", *where, "Anna", "--role", "owner", "--password-stdin", typed=f"{PASSWORD}\n")
    assert (made.exit_code, made.stdout) == (0, "Anna can sign in as owner.\n")
    refused = command("add", *where, "bo", "--role", "reader", "--password-stdin", typed="short\n")
    assert isinstance(refused.exception, RestainError)
    assert str(refused.exception) == "A password needs at least 10 characters."
    hidden = command("password", *where, "anna")
    assert "--password-stdin" in str(hidden.exception)
    listed = command("list", *where)
    assert listed.stdout.split()[:2] == ["Anna", "owner"]
    assert PASSWORD not in listed.stdout
    assert command("remove", *where, "anna").exit_code == 0
    assert command("list", *where).stdout == ""


@pytest.mark.slow
def test_the_command_asks_for_the_password_twice_without_showing_it(tmp_path):
    pty = pytest.importorskip("pty", reason="this system has no terminals")
    (tmp_path / "slides").mkdir()
    words = ["accounts", "add", "slides", "Anna", "--role", "owner", "--state", "state"]
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "restain", *words],
        cwd=tmp_path,
        stdin=there,
        stdout=there,
        stderr=there,
        start_new_session=True,
    )
    os.close(there)
    shown = b""
    # The space comes when the terminal no longer shows what is typed.
    for prompt in (b"Password: ", b"Repeat: "):
        while prompt not in shown:
            shown += os.read(here, 1000)
        os.write(here, f"{PASSWORD}\n".encode())
    while b"can sign in" not in shown:
        shown += os.read(here, 1000)
    process.wait()
    os.close(here)
    assert process.returncode == 0
    assert PASSWORD.encode() not in shown


@pytest.fixture
def serving(folder, tmp_path) -> Iterator[Callable[..., tuple[str, str]]]:
    """Starts ``restain serve`` with an owner; its address."""
    processes = []

    def begin(*words: str) -> str:
        state = with_accounts(tmp_path / "state", Anna=Role.OWNER)
        process = subprocess.Popen(
            [sys.executable, "-m", "restain", "serve", str(folder), "--port", "0", "--state", str(state), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        )
        processes.append(process)
        line = process.stdout.readline()
        found = re.search(r"https?://\S+/", line)
        assert found, process.stderr.read()
        begin.process = process
        return found[0]

    yield begin
    for process in processes:
        process.terminate()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl makes a certificate")
def test_over_tls_the_cookie_is_secure(serving, tmp_path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    address = serving("--tls-certificate", str(certificate), "--tls-key", str(key))
    assert address.startswith("https://127.0.0.1:")
    import ssl

    with httpx.Client(base_url=address, verify=ssl.create_default_context(cafile=certificate)) as browser:
        form = re.search(r'name="csrf" value="(\w+)"', browser.get("/account/sign-in").text)[1]
        fields = {"csrf": form, "name": "Anna", "password": PASSWORD}
        sent = browser.post("/account/sign-in", data=fields, headers={"Origin": address.rstrip("/")})
        cookie = next(one for one in sent.headers.get_list("set-cookie") if len(one.split(";")[0]) > 60)
        assert cookie.startswith(f"__Host-restain-{urlsplit(address).port}=")
        assert "Secure" in cookie
        assert browser.get("/account").status_code == 200


def test_a_certificate_that_cannot_be_used_is_told(tmp_path):
    wrong, none = tmp_path / "wrong.pem", tmp_path / "none.pem"
    wrong.write_text("no certificate")
    for certificate, key, why in (
        (wrong, None, "cannot be used for TLS"),
        (wrong, none, "none.pem is not a file"),
        (none, None, "is not a file"),
        (None, wrong, "needs --tls-certificate"),
    ):
        with pytest.raises(RestainError, match=why):
            check_tls(certificate, key)


@pytest.mark.slow
def test_a_proxy_is_believed_only_when_it_is_said_to_be_there(serving):
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.1.1.1"}
    address = serving("--allow-host", "stain.example")
    cookies = httpx.get(f"{address}account/sign-in", headers=forwarded).headers.get_list("set-cookie")
    assert not any("Secure" in one for one in cookies)
    assert httpx.get(f"{address}account/sign-in", headers={"Host": "stain.example"}).status_code == 200
    assert "unencrypted" in serving.process.stderr.readline()


@pytest.mark.slow
def test_behind_a_proxy_with_tls_the_cookie_is_secure(serving):
    address = serving("--behind-proxy", "--allow-host", "stain.example")
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.1.1.1", "Host": "stain.example"}
    cookies = httpx.get(f"{address}account/sign-in", headers=forwarded).headers.get_list("set-cookie")
    assert any(one.startswith("__Host-restain-") and "Secure" in one for one in cookies)


@pytest.fixture
def page(browser) -> Iterator:
    """A page in which no script fails, no rule of the content policy is broken, and no dialog opens."""
    context = browser.new_context(viewport={"width": 820, "height": 1180}, locale="en-GB")
    opened, faults = context.new_page(), []
    opened.on("pageerror", lambda fault: faults.append(str(fault)))
    opened.on("dialog", lambda dialog: faults.append(dialog.message))
    opened.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    yield opened
    context.close()
    assert faults == []


def send(page, **fields: str) -> None:
    """By keys alone: fields by their labels, then Enter."""
    for label, value in fields.items():
        page.get_by_label(label.replace("_", " "), exact=True).fill(value)
    with page.expect_navigation():
        page.keyboard.press("Enter")


@pytest.mark.browser
@in_browser
def test_a_browser_signs_in_reads_on_and_signs_out(page, guarded):
    asked = f"{guarded.url}/view/{guarded.id_of(HE)}?mode=single"
    page.goto(asked)
    assert urlsplit(page.url).path == "/account/sign-in"
    assert page.locator("#name").evaluate("one => one === document.activeElement")
    page.keyboard.type("anna")
    page.keyboard.press("Tab")
    page.keyboard.type("wrong wrong wrong")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    alert = page.get_by_role("alert")
    assert alert.inner_text() == "Wrong name or password."
    # The name stays, the password does not, and the cursor is where it is needed.
    assert page.locator("#name").input_value() == "anna"
    assert page.locator("#password").input_value() == ""
    assert page.locator("#password").evaluate("one => one === document.activeElement")
    page.keyboard.type(PASSWORD)
    with page.expect_navigation():
        page.keyboard.press("Enter")
    page.wait_for_selector("body[data-ready]")
    assert urlsplit(page.url).path == urlsplit(asked).path
    page.get_by_role("link", name="Anna").click()
    page.wait_for_url("**/account")
    page.get_by_role("button", name="Sign out").focus()
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.get_by_role("status").inner_text() == "You are signed out."
    assert page.get_by_role("button", name="Sign out").count() == 0
    page.go_back()
    # What the browser kept does not show what is closed.
    page.reload()
    assert urlsplit(page.url).path == "/account/sign-in"


@pytest.mark.browser
@in_browser
def test_a_browser_changes_its_password_in_chinese(page, own):
    page.goto(f"{own.url}/account?lang=zh")
    assert page.get_by_role("heading", level=1).inner_text() == "登录"
    send(page, 用户名="bo", 密码=PASSWORD)
    page.goto(f"{own.url}/account")
    send(page, 当前密码=PASSWORD, 新密码=OTHER, 再次输入新密码=f"{OTHER}x")
    assert page.get_by_role("alert").inner_text() == "两次输入的新密码不一致。"
    send(page, 当前密码=PASSWORD, 新密码=OTHER, 再次输入新密码=OTHER)
    assert "密码已修改" in page.get_by_role("status").inner_text()
    signed_in(own, "bo", OTHER)


@pytest.mark.browser
@in_browser
@pytest.mark.parametrize("size", [(1440, 900), (820, 1180), (360, 640)])
def test_a_long_name_leaves_room_for_everything_else(page, start, tmp_path, size: tuple[int, int]):
    name = "Wolfeschlegelsteinhausenbergerdorff " * 2
    running = start(with_accounts(tmp_path / "state", **{name: Role.OWNER}))
    try:
        page.set_viewport_size({"width": size[0], "height": size[1]})
        for language in ("en", "zh"):
            page.goto(f"{running.url}/account?lang={language}")
            if language == "en":
                send(page, Name=name, Password=PASSWORD)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.locator(".account button").bounding_box()["x"] > 0
    finally:
        running.stop()


@pytest.mark.browser
@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast(page, guarded, scheme: str):
    page.emulate_media(color_scheme=scheme)
    page.goto(guarded.url)
    send(page, Name="anna", Password="wrong wrong wrong")
    assert page.evaluate(CONTRASTS) == []
    send(page, Name="anna", Password=PASSWORD)
    page.goto(f"{guarded.url}/account?changed=1")
    assert page.evaluate(CONTRASTS) == []


CONTRASTS = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if ((parts(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own && one.tagName !== "INPUT") continue;
    const pair = [light(getComputedStyle(one).color), light(ground(one))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) poor.push(`${one.tagName} ${one.textContent.trim()} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""

"""Accounts and sessions, on SQLite and on Postgres."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")
argon2 = pytest.importorskip("argon2", reason="the extra web is not installed")

from restain.errors import RestainError  # noqa: E402
from restain.web.accounts import passwords  # noqa: E402
from restain.web.accounts.roster import Roster  # noqa: E402
from restain.web.accounts.sessions import Sessions  # noqa: E402
from restain.web.identity import Account, Role  # noqa: E402
from restain.web.store import Store  # noqa: E402

PASSWORD = "four words in a row"


@pytest.fixture(autouse=True)
def cheap(monkeypatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path, url)) as opened:
        yield opened


def test_an_account_from_its_making_to_its_removal(store: Store):
    roster, sessions = Roster(store.database), Sessions(store.database)
    assert not roster.any()
    roster.add("Anna", Role.OWNER, PASSWORD)
    roster.add("陈医生", Role.READER, PASSWORD)
    known = roster.check("陈医生", PASSWORD)
    assert known.account == Account("陈医生", Role.READER)
    tokens = [sessions.begin(known) for _ in range(2)]
    assert [sessions.account(token) for token in tokens] == [known.account] * 2
    assert [(one.account.name, one.sessions) for one in roster.entries()] == [("Anna", 0), ("陈医生", 2)]
    sessions.end(tokens[0])
    assert [sessions.account(token) for token in tokens] == [None, known.account]
    roster.remove("陈医生")
    assert sessions.account(tokens[1]) is None
    assert roster.check("陈医生", PASSWORD) is None


def test_who_gave_a_password_that_was_changed_meanwhile_does_not_come_in(store: Store):
    roster, sessions = Roster(store.database), Sessions(store.database)
    roster.add("Anna", Role.OWNER, PASSWORD)
    known = roster.check("anna", PASSWORD)
    roster.set_password("anna", "quite another one")
    assert sessions.begin(known) is None
    known = roster.check("anna", "quite another one")
    roster.remove("anna")
    assert sessions.begin(known) is None


def test_what_no_database_takes_is_no_name(store: Store):
    roster = Roster(store.database)
    for name in ("\x00", "a\x00b", "\udcff", "x" * 1000, "' OR 1=1 --"):
        assert roster.check(name, f"{name} {PASSWORD}") is None
    assert Sessions(store.database).account("\x00\udcff") is None


def test_of_two_accounts_of_one_name_made_at_once_one_is_refused(store: Store):
    told = []

    def add(name: str) -> None:
        try:
            told.append(Roster(store.database).add(name, Role.READER, PASSWORD).name)
        except RestainError as fault:
            told.append("already" in str(fault))

    threads = [threading.Thread(target=add, args=(name,)) for name in ("Bo", "bo", "BO", "ｂｏ")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.count(True) == 3
    assert len(Roster(store.database).entries()) == 1

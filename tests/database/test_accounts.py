"""Accounts and sessions, on SQLite and on Postgres."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")
argon2 = pytest.importorskip("argon2", reason="the extra web is not installed")

from restain.database import Database  # noqa: E402
from restain.errors import RestainError  # noqa: E402
from restain.web.accounts import passwords  # noqa: E402
from restain.web.accounts.account import Account, Role  # noqa: E402
from restain.web.accounts.sessions import Sessions  # noqa: E402
from restain.web.accounts.store import AccountStore  # noqa: E402
from restain.web.database import open_database  # noqa: E402

PASSWORD = "four words in a row"


@pytest.fixture(autouse=True)
def cheap(monkeypatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[Database]:
    with closing(open_database(tmp_path, url)) as opened:
        yield opened


def test_an_account_from_its_making_to_its_removal(store: Database):
    accounts, sessions = AccountStore(store), Sessions(store)
    assert not accounts.any()
    accounts.add("Anna", Role.OWNER, PASSWORD)
    accounts.add("陈医生", Role.READER, PASSWORD)
    known = accounts.verify("陈医生", PASSWORD)
    assert known.account == Account("陈医生", Role.READER)
    tokens = [sessions.begin(known) for _ in range(2)]
    assert [sessions.account(token) for token in tokens] == [known.account] * 2
    assert [(one.account.name, one.sessions) for one in accounts.entries()] == [("Anna", 0), ("陈医生", 2)]
    sessions.end(tokens[0])
    assert [sessions.account(token) for token in tokens] == [None, known.account]
    accounts.remove("陈医生")
    assert sessions.account(tokens[1]) is None
    assert accounts.verify("陈医生", PASSWORD) is None


def test_who_gave_a_password_that_was_changed_meanwhile_does_not_come_in(store: Database):
    accounts, sessions = AccountStore(store), Sessions(store)
    accounts.add("Anna", Role.OWNER, PASSWORD)
    known = accounts.verify("anna", PASSWORD)
    accounts.set_password("anna", "quite another one")
    assert sessions.begin(known) is None
    known = accounts.verify("anna", "quite another one")
    accounts.remove("anna")
    assert sessions.begin(known) is None


def test_what_no_database_takes_is_no_name(store: Database):
    accounts = AccountStore(store)
    for name in ("\x00", "a\x00b", "\udcff", "x" * 1000, "' OR 1=1 --"):
        assert accounts.verify(name, f"{name} {PASSWORD}") is None
    assert Sessions(store).account("\x00\udcff") is None


def test_of_two_accounts_of_one_name_made_at_once_one_is_refused(store: Database):
    told = []

    def add(name: str) -> None:
        try:
            told.append(AccountStore(store).add(name, Role.READER, PASSWORD).name)
        except RestainError as fault:
            told.append("already" in str(fault))

    threads = [threading.Thread(target=add, args=(name,)) for name in ("Bo", "bo", "BO", "ｂｏ")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.count(True) == 3
    assert len(AccountStore(store).entries()) == 1

"""What a database promises, on SQLite and on Postgres, and how an older one is brought on."""

import shutil
import subprocess
import sys
import threading
from importlib import resources
from pathlib import Path

import pytest

sql = pytest.importorskip("sqlalchemy", reason="the extra review is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

from restain.database import Database, StoreFault  # noqa: E402
from restain.errors import RestainError  # noqa: E402
from restain.review import tables as review  # noqa: E402
from restain.web.annotations import AnnotationStore  # noqa: E402
from restain.web.database import FILE, open_database  # noqa: E402


class Store(AnnotationStore):
    """Annotations in a database that they open."""

    def __init__(self, state: Path, url: str | None = None) -> None:
        self.database = open_database(state, url)
        super().__init__(self.database)

    def close(self) -> None:
        self.database.close()


ADDS_AUTHOR = "op.execute('ALTER TABLE annotations ADD COLUMN author TEXT')"


def version(database: Database, room: str = "web") -> str:
    with database.read() as connection:
        return connection.execute(sql.text(f"SELECT version_num FROM {room}_version")).scalar_one()


def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> sql.MetaData:
    """The server's tables with one migration more, as a later restain would have them."""
    folder = tmp_path / "later" / "web"
    shutil.copytree(str(resources.files("restain.web").joinpath("migrations")), folder / "migrations")
    for package in (folder.parent, folder):
        (package / "__init__.py").touch()
    newest = max(path.stem[1:5] for path in (folder / "migrations").glob("m*.py"))
    (folder / "migrations" / "m9999_later.py").write_text(
        f"from alembic import op\nrevision, down_revision = '9999', '{newest}'\ndef upgrade():\n    {step}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "later"]:
        monkeypatch.delitem(sys.modules, name)
    declared = sql.MetaData(info={"migrations": "later.web.migrations"})
    sql.Table("annotations", declared, *(sql.Column(name, sql.Text) for name in ("image", "name", "author")))
    return declared


def test_a_transaction_is_kept_whole_or_leaves_no_trace(url: str):
    store = Store(Path(), url)
    store.save("a", "a.png", [{"x": 1}], 0)
    deletes, fails = sql.text("DELETE FROM annotations"), sql.text("INSERT INTO annotations (image) VALUES ('b')")
    with pytest.raises(sql.exc.IntegrityError), store.database.write() as connection:
        _ = connection.execute(deletes), connection.execute(fails)
    store.close()
    again = Store(Path(), url)
    assert again.get("a").features == [{"x": 1}]
    again.close()


def test_of_many_writers_none_overwrites_what_another_read(url: str):
    store = Store(Path(), url)
    store.save("a", "a.png", [], 0)
    row = sql.text("SELECT version FROM annotations WHERE image = 'a'")

    def add() -> None:
        for _ in range(10):
            with store.database.write() as connection:
                seen = connection.execute(row).scalar_one()
                connection.execute(sql.text("UPDATE annotations SET version = :next"), {"next": seen + 1})

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("a").version == 81
    store.close()


def test_a_reader_sees_one_state_and_holds_up_nobody(url: str):
    store = Store(Path(), url)
    store.save("a", "a.png", [], 0)
    count = sql.text("SELECT count(*) FROM annotations")
    with store.database.read() as connection:
        assert connection.execute(count).scalar_one() == 1
        store.save("b", "b.png", [], 0)
        assert connection.execute(count).scalar_one() == 1
    with store.database.read() as connection:
        assert connection.execute(count).scalar_one() == 2
    store.close()


def test_rooms_share_a_database(url: str, tmp_path: Path):
    Database(url, review.TABLES).close()
    store = Store(tmp_path, url)
    store.save("a", "a.png", [], 0)
    assert version(store.database, "review") == "0001"
    store.close()


OPENS = """
import sys
from restain.database import Database
from restain.review import tables
print("ready", flush=True)
input()
with Database(sys.argv[1], tables.TABLES).write() as connection:
    connection.execute(tables.READERS.insert().values(name=sys.argv[2]))
"""


@pytest.mark.slow
def test_processes_that_start_at_once_make_the_tables_once(url: str):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENS, url, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[1] for process in processes] == [""] * 4
    with Database(url, review.TABLES).read() as connection:
        assert connection.execute(sql.select(sql.func.count()).select_from(review.READERS)).scalar_one() == 4


def test_a_newer_database_is_refused_and_left_alone(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path, url)
    store.save("a", "a.png", [], 0)
    store.close()
    newer = Database(url, later(tmp_path, monkeypatch, ADDS_AUTHOR))
    assert version(newer) == "9999"
    with pytest.raises(RestainError, match=r"newer restain \(version 9999"):
        Store(tmp_path, url)
    with newer.read() as connection:
        assert connection.execute(sql.text("SELECT name, author FROM annotations")).all() == [("a.png", None)]
    newer.close()


def test_a_step_that_fails_changes_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path, url)
    before = version(store.database)
    store.close()
    twice = f"{ADDS_AUTHOR}; op.execute('ALTER TABLE none ADD COLUMN x TEXT')"
    with pytest.raises(StoreFault, match="cannot be used"):
        Database(url, later(tmp_path, monkeypatch, twice))
    store = Store(tmp_path, url)
    assert version(store.database) == before
    with store.database.read() as connection:
        assert "author" not in {one["name"] for one in sql.inspect(connection).get_columns("annotations")}
    store.close()


def test_a_new_database_is_made_at_the_newest_version(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    database = Database(url, later(tmp_path, monkeypatch, ADDS_AUTHOR))
    assert version(database) == "9999"
    with database.read() as connection:
        assert connection.execute(sql.text("SELECT author FROM annotations")).all() == []
    database.close()


def test_a_table_that_is_not_restain_s_is_left_alone(url: str, tmp_path: Path):
    engine = sql.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sql.text("CREATE TABLE jobs (title TEXT)"))
    with pytest.raises(StoreFault, match=r"jobs.* already exists"):
        Store(tmp_path, url)
    assert sql.inspect(engine).get_table_names() == ["jobs"]
    engine.dispose()


def test_a_server_s_file_is_made_its_own_user_s_alone(tmp_path: Path):
    (tmp_path / FILE).touch(0o644)
    store = Store(tmp_path)
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    store.close()


def test_no_sentence_holds_the_password(tmp_path: Path):
    secret = "hunter2&geheim"
    for wrong in (
        f"postgresql://anna:{secret}@127.0.0.1:1/none",
        f"mysql://anna:{secret}@host/none",
        f"anna:{secret}@host",
        f"postgresql://anna:{secret}@127.0.0.1:port/none",
    ):
        with pytest.raises(RestainError) as fault:
            Store(tmp_path, wrong)
        assert secret not in str(fault.value)
        assert "hunter2" not in str(fault.value)
        assert "\n" not in str(fault.value)


def test_a_database_that_is_gone_is_told(tmp_path: Path):
    folder = tmp_path / "state"
    folder.mkdir()
    store = Store(folder)
    store.close()
    shutil.rmtree(folder)
    with pytest.raises(StoreFault, match=r"restain\.sqlite cannot be read"):
        store.get("a")
    with pytest.raises(StoreFault, match=r"restain\.sqlite cannot be written"):
        store.save("a", "a.png", [], 0)
    with pytest.raises(StoreFault, match="cannot be used as a store"):
        Store(folder)


@pytest.mark.postgres
def test_a_connection_that_the_server_dropped_is_made_again(postgres: str, tmp_path: Path):
    store = Store(tmp_path, postgres)
    store.save("a", "a.png", [], 0)
    other = Database(postgres, review.TABLES)
    with other.write() as connection:
        others = sql.text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        assert connection.execute(others).all()
    assert store.get("a").version == 1
    store.close()
    other.close()

"""What a database promises, on SQLite and on Postgres, and how an older one is taken over."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from importlib import resources
from pathlib import Path

import pytest

sql = pytest.importorskip("sqlalchemy", reason="the extra review is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

from alembic.autogenerate import compare_metadata  # noqa: E402
from alembic.migration import MigrationContext  # noqa: E402

from restain.database import Database, StoreFault  # noqa: E402
from restain.errors import RestainError  # noqa: E402
from restain.review import Study  # noqa: E402
from restain.review import store as review  # noqa: E402
from restain.web import store as web  # noqa: E402

HERE = Path(__file__).parent


def version(database: Database, room: str = "web") -> str:
    with database.read() as connection:
        return connection.execute(sql.text(f"SELECT version_num FROM {room}_version")).scalar_one()


def from_dump(dump: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.executescript((HERE / dump).read_text(encoding="utf-8"))
    connection.close()
    return path


def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> str:
    """The server's migrations and one more, as a later restain would have them."""
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
    return "later.web.migrations"


def test_a_transaction_is_kept_whole_or_leaves_no_trace(url: str):
    store = web.Store(Path(), url)
    store.save("a", "a.png", [{"x": 1}], 0)
    deletes, fails = sql.text("DELETE FROM annotations"), sql.text("INSERT INTO annotations (image) VALUES ('b')")
    with pytest.raises(sql.exc.IntegrityError), store.database.write() as connection:
        _ = connection.execute(deletes), connection.execute(fails)
    store.close()
    again = web.Store(Path(), url)
    assert again.annotations("a").features == [{"x": 1}]
    again.close()


def test_of_many_writers_none_overwrites_what_another_read(url: str):
    store = web.Store(Path(), url)
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
    assert store.annotations("a").version == 81
    store.close()


def test_a_reader_sees_one_state_and_holds_up_nobody(url: str):
    store = web.Store(Path(), url)
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
    Database(url, review.MIGRATIONS).close()
    store = web.Store(tmp_path, url)
    store.save("a", "a.png", [], 0)
    assert version(store.database, "review") == "0001"
    store.close()


OPENS = """
import sys
from restain.database import Database
from restain.review import store
print("ready", flush=True)
input()
with Database(sys.argv[1], store.MIGRATIONS).write() as connection:
    connection.execute(store.READERS.insert().values(name=sys.argv[2]))
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
    with Database(url, review.MIGRATIONS).read() as connection:
        assert connection.execute(sql.select(sql.func.count()).select_from(review.READERS)).scalar_one() == 4


def test_a_newer_database_is_refused_and_left_alone(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = web.Store(tmp_path, url)
    store.save("a", "a.png", [], 0)
    store.close()
    step = later(tmp_path, monkeypatch, "op.execute('ALTER TABLE annotations ADD COLUMN author TEXT')")
    newer = Database(url, step)
    assert version(newer) == "9999"
    with pytest.raises(RestainError, match=r"newer restain \(version 9999"):
        web.Store(tmp_path, url)
    with newer.read() as connection:
        assert connection.execute(sql.text("SELECT name, author FROM annotations")).all() == [("a.png", None)]
    newer.close()


def test_a_step_that_fails_changes_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = web.Store(tmp_path, url)
    before = version(store.database)
    store.close()
    twice = (
        "op.execute('ALTER TABLE annotations ADD COLUMN author TEXT'); op.execute('ALTER TABLE none ADD COLUMN x TEXT')"
    )
    with pytest.raises(StoreFault, match="cannot be used"):
        Database(url, later(tmp_path, monkeypatch, twice))
    store = web.Store(tmp_path, url)
    assert version(store.database) == before
    with store.database.read() as connection:
        assert "author" not in {one["name"] for one in sql.inspect(connection).get_columns("annotations")}
    store.close()


def test_a_server_s_store_from_before_versions_is_taken_over(tmp_path: Path):
    from_dump("web_before_alembic.sql", tmp_path / web.FILE).chmod(0o644)
    store = web.Store(tmp_path)
    kept = store.annotations("9c1185a5c5e9fc546128")
    assert kept.version == 2
    assert kept.features[0]["properties"]["name"] == "核分裂"
    assert store.save("9c1185a5c5e9fc546128", "block_1.ome.tiff", [], 2).version == 3
    assert (tmp_path / web.FILE).stat().st_mode & 0o077 == 0
    store.close()


def test_a_study_s_store_from_before_alembic_is_taken_over(tmp_path: Path):
    path = from_dump("study_before_alembic.sql", tmp_path / review.FILE)
    for _ in range(2):
        with Study.open(tmp_path) as study:
            assert [one.value for one in study.answers()] == ["2+", "virtual", "4", "zarte Färbung", "1+"]
            assert study.progress("anna").done == 1
    # What an older restain looks at: it says "newer" and leaves the store alone.
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT schema_version FROM meta").fetchall() == [(2,)]
    connection.execute("DROP TABLE review_version")
    connection.execute("UPDATE meta SET schema_version = 7")
    connection.commit()
    connection.close()
    with pytest.raises(RestainError, match=r"newer restain \(schema 7"):
        Study.open(tmp_path)


def test_the_steps_make_the_tables_that_the_code_uses(url: str):
    from restain.web.accounts import tables

    for migrations, declared in (
        (review.MIGRATIONS, (review.STUDY.metadata,)),
        (web.MIGRATIONS, (web.ANNOTATIONS.metadata, tables.ACCOUNTS.metadata)),
    ):
        database = Database(url, migrations)
        with database.write() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": "x"})
            for metadata in declared:
                known = metadata.tables
                differences = [
                    one
                    for one in compare_metadata(context, metadata)
                    if not (one[0].startswith("remove_") and str(getattr(one[1], "table", one[1])) not in known)
                ]
                assert differences == []
        database.close()


def test_no_sentence_holds_the_password(tmp_path: Path):
    secret = "hunter2&geheim"
    for wrong in (
        f"postgresql://anna:{secret}@127.0.0.1:1/none",
        f"mysql://anna:{secret}@host/none",
        f"anna:{secret}@host",
        f"postgresql://anna:{secret}@127.0.0.1:port/none",
    ):
        with pytest.raises(RestainError) as fault:
            web.Store(tmp_path, wrong)
        assert secret not in str(fault.value)
        assert "hunter2" not in str(fault.value)
        assert "\n" not in str(fault.value)


def test_a_database_that_is_gone_is_told(tmp_path: Path):
    folder = tmp_path / "state"
    folder.mkdir()
    store = web.Store(folder)
    store.close()
    shutil.rmtree(folder)
    with pytest.raises(StoreFault, match=r"restain\.sqlite cannot be read"):
        store.annotations("a")
    with pytest.raises(StoreFault, match=r"restain\.sqlite cannot be written"):
        store.save("a", "a.png", [], 0)
    with pytest.raises(StoreFault, match="cannot be used as a store"):
        web.Store(folder)


@pytest.mark.postgres
def test_a_connection_that_the_server_dropped_is_made_again(postgres: str, tmp_path: Path):
    store = web.Store(tmp_path, postgres)
    store.save("a", "a.png", [], 0)
    other = Database(postgres, review.MIGRATIONS)
    with other.write() as connection:
        others = sql.text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        assert connection.execute(others).all()
    assert store.annotations("a").version == 1
    store.close()
    other.close()

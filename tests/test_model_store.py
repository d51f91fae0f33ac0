"""Models by name, path and address: found, downloaded from a real server, resumed, and refused."""

from __future__ import annotations

import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from restain.bundle import CARD, WEIGHTS, load_bundle, save_bundle
from restain.cli import app
from restain.errors import RestainError
from restain.model_store import find_model, get_model, store_folder
from restain.models.generator import Generator
from restain.recipe import ExpressionRecipe, GeneratorRecipe, Recipe


class Server(http.server.ThreadingHTTPServer):
    """Serves one archive, with ranges unless ``ranges`` is off; ``cut`` ends the first answer early."""

    content = b""
    ranges = True
    cut: int | None = None
    asked: list[str | None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path != "/tiny.zip":
            self.send_error(404)
            return
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        part = self.server.content[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(part if cut is None else part[:cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("RESTAIN_MODELS", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(
        generator=GeneratorRecipe(width=4, depth=1), expression=ExpressionRecipe(width=4), half_weights=True
    )
    bundle = tmp_path / "bundle"
    save_bundle(bundle, Generator(recipe.generator, recipe.expression), recipe, step=1, data="made up", figures={})
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as packed:
        for file in (CARD, WEIGHTS):
            packed.write(bundle / file, f"somewhere/{file}")
        packed.writestr("../outside.txt", "never written")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.content = (tmp_path / "tiny.zip").read_bytes()
        running.asked = []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: Server, file: str = "tiny.zip") -> str:
    return f"http://127.0.0.1:{server.server_port}/{file}"


def sha256(server: Server) -> str:
    return hashlib.sha256(server.content).hexdigest()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on_or_starts_anew(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.cut, server.ranges = 5000, ranges
    with pytest.raises(RestainError, match="ended early"):
        get_model(address(server), sha256(server))
    assert not (store_folder() / "tiny").exists()
    seen: list[tuple[int, int]] = []
    folder = get_model(address(server), sha256(server), progress=lambda done, total: seen.append((done, total)))
    assert server.asked == [None, "bytes=5000-"]
    assert seen[-1] == (len(server.content), len(server.content))
    assert load_bundle("tiny").path == folder == find_model(f"{address(server)}#sha256={sha256(server)}")
    assert len(server.asked) == 2, "a model that is there is not downloaded again"
    assert not (tmp_path / "outside.txt").exists()
    assert sorted(p.name for p in store_folder().iterdir()) == ["tiny"]


def test_a_wrong_hash_leaves_what_was_there(server: Server) -> None:
    get_model(address(server), sha256(server))
    before = (store_folder() / "tiny" / CARD).read_bytes()
    with pytest.raises(RestainError, match="not 0000"):
        get_model(address(server), "0" * 64)
    assert (store_folder() / "tiny" / CARD).read_bytes() == before


def test_what_is_no_model_is_refused(server: Server) -> None:
    with pytest.raises(RestainError, match="404"):
        get_model(address(server, "none.zip"), "0" * 64)
    with pytest.raises(RestainError, match="add the archive's SHA-256"):
        find_model(address(server))
    with pytest.raises(RestainError, match="64 hexadecimal digits"):
        get_model(address(server), "12")
    with pytest.raises(RestainError, match="no http or https address"):
        get_model("file:///etc/passwd.zip", "0" * 64)
    with pytest.raises(RestainError, match="is not a model bundle, nor the name of one"):
        find_model("nothing")
    server.content = b"no archive"
    with pytest.raises(RestainError, match="no zip archive of a model bundle"):
        get_model(address(server), sha256(server))


def test_the_commands_get_and_list(server: Server) -> None:
    got = CliRunner().invoke(app, ["models", "get", address(server), "--sha256", sha256(server), "--name", "mine"])
    assert got.exit_code == 0, got.output
    listed = CliRunner().invoke(app, ["models"])
    assert listed.exit_code == 0
    assert "mine" in listed.output
    assert "default" in listed.output

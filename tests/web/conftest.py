"""A folder as a user has it: H&E and stained slides, a registered IHC, pairs, and what does not belong there."""

import hashlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from restain import NOTICE
from restain.geometry import Size
from restain.registration import Transform, write_transform
from restain.slides import Polygon, write_geojson

from ..samples import tissue_picture, write_slide

pytest.importorskip("fastapi", reason="the extra web is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra web is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")
argon2 = pytest.importorskip("argon2", reason="the extra web is not installed")

from restain.web import create_app  # noqa: E402
from restain.web.accounts import passwords  # noqa: E402
from restain.web.settings import Settings  # noqa: E402

SIZE, MPP = Size(1500, 1100), 0.5
HE, VIRTUAL, IHC = "block_1.ome.tiff", "virtual/block_1.ome.tiff", "ihc/her2 §1.ome.tiff"
HOSTILE = "<img src=x onerror=alert(1)>&'\".png"
LONG = "a_very_long_name_" * 11 + ".png"


CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
in_browser = pytest.mark.skipif(
    not (CHROMIUM and find_spec("playwright")), reason="no Chromium or playwright is installed"
)
"""Beside the mark ``browser``."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])


def watch(page: Any, faults: list[str]) -> None:
    """Add to ``faults`` what the page logs as an error, scripts that fail, and requests to another host."""
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    here = ("http://127.0.0.1", "blob:", "data:")
    page.on("request", lambda request: None if request.url.startswith(here) else faults.append(request.url))


@pytest.fixture(scope="module", autouse=True)
def cheap() -> Iterator[None]:
    """Passwords are hashed at the least cost: these tests are not about its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        passwords._unknown_hash.cache_clear()
        yield
    passwords._unknown_hash.cache_clear()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served") / "slides of block"
    he = tissue_picture(SIZE.height, SIZE.width)
    brown = tissue_picture(SIZE.height, SIZE.width, 1, low=(90, 50, 20), high=(220, 190, 170))
    write_slide(root / HE, he, {"notice": "synthetic tissue; research use only"})
    made = {"notice": NOTICE, "source": HE, "bundle_hash": "0" * 64}
    write_slide(root / VIRTUAL, brown, made)
    density = np.where(brown[..., 2] < 150, np.float32(0.5), np.float32(0))
    write_slide(root / "virtual/block_1.dab.ome.tiff", density, made)
    # The IHC slide shows the H&E's px (x, y) at (x + 40, y + 30).
    moved = np.full((1200, 1600, 3), 240, np.uint8)
    moved[30 : 30 + SIZE.height, 40 : 40 + SIZE.width] = he
    write_slide(root / IHC, moved, {"notice": "a chemical stain"})
    shift = Transform(np.array([[1.0, 0, 40], [0, 1, 30]]), SIZE, Size(1600, 1200), MPP, MPP)
    write_transform(root / "registration", shift, (HE, Path(IHC).name))
    Image.fromarray(he[:90, :120]).save(root / "registration" / "overlay.png")
    square = np.array([(100.0, 100.0), (700.0, 100.0), (700.0, 650.0), (100.0, 650.0)])
    write_geojson(root / "block_1.tissue.geojson", [Polygon(square)])
    write_geojson(root / "virtual" / "block_1.ood.geojson", [Polygon(square / 2)], "Unlike the training images")
    for stain, seed in (("HE", 2), ("IHC", 3)):
        (root / "BCI" / stain / "train").mkdir(parents=True)
        Image.fromarray(tissue_picture(256, 256, seed, low=(60, 60, 60), high=(220, 200, 220))).save(
            root / "BCI" / stain / "train" / "00001_train_2+.png"
        )
    (root / "odd").mkdir()
    # A slash cannot stand in a file's name; everything else of a script can.
    for name in (HOSTILE, LONG):
        Image.fromarray(he[:90, :120]).save(root / "odd" / name)
    (root / "odd" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (root / "odd" / "cut.ome.tiff").write_bytes((root / HE).read_bytes()[:3000])
    outside = root.parent / "outside"
    outside.mkdir()
    Image.fromarray(brown[:90, :120]).save(outside / "secret.png")
    os.symlink(outside / "secret.png", root / "linked.png")
    os.symlink(outside, root / "linked")
    return root


def behind_proxy(app: Any, root: str) -> Any:
    """The application as behind a proxy that shows it under ``root`` and nothing elsewhere."""

    async def proxied(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if not f"{scope['path']}/".startswith(f"{root}/"):
                await send({"type": "http.response.start", "status": 404, "headers": []})
                await send({"type": "http.response.body"})
                return
            scope = scope | {"root_path": root}
        await app(scope, receive, send)

    return proxied if root else app


class Server:
    """A real server on a free port, in a thread of its own."""

    def __init__(self, folder: Path, state: Path, port: int = 0, **more: Any) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        self.port = listening.getsockname()[1]
        root = more.get("root_path", "")
        self.url = f"http://127.0.0.1:{self.port}{root}"
        app = behind_proxy(create_app(Settings(folder, state, **more)), root)
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def id_of(self, name: str) -> str:
        return hashlib.sha256(name.encode()).hexdigest()[:20]

    def get(self, path: str, **more: Any) -> Any:
        return httpx.get(self.url + path, timeout=20, **more)

    def image(self, name: str, path: str, **more: Any) -> Any:
        return self.get(f"/api/images/{self.id_of(name)}/{path}", **more)


@pytest.fixture(scope="session")
def start(folder: Path) -> Callable[..., Server]:
    """Starts a further server; its caller stops it."""
    return lambda state, **more: Server(more.pop("of", folder), state, **more)


@pytest.fixture(scope="session")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(folder, tmp_path_factory.mktemp("state"))
    yield running
    running.stop()

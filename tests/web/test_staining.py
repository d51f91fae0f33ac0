"""Staining from the browser's side: uploads, the queue, its processes, and what survives a kill."""

import asyncio
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain import NOTICE
from restain.bundle import read_card
from restain.geometry import Size
from restain.model_store import DEFAULT
from restain.slides import TileStore, read_metadata, write_ome_tiff

from ..samples import ONE_ISLAND, small_recipe, tissue_picture, write_bundle

pytest.importorskip("fastapi", reason="the extra web is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")

from restain.web.errors import RequestError  # noqa: E402
from restain.web.staining import uploads  # noqa: E402
from restain.web.staining.uploads import safe_name  # noqa: E402

MODEL = read_card(DEFAULT).hash[:12]
OVER = ("done", "failed", "cancelled")


def tissue(height: int, width: int) -> np.ndarray:
    return tissue_picture(height, width, 4, islands=ONE_ISLAND)


def png(height: int, width: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tissue(height, width)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stained") / "slides"
    (root / "blocks").mkdir(parents=True)
    (root / "small.png").write_bytes(png(300, 400))
    # The same name twice: the result belongs to the one that was chosen.
    (root / "blocks" / "small.png").write_bytes(png(310, 400))
    Image.fromarray(tissue(1100, 2300)).save(root / "large.png", compress_level=1)
    with tifffile.TiffWriter(root / "fields.ome.tif", ome=True) as tiff:
        for picture in (tissue(300, 400), tissue(320, 280)):
            tiff.write(picture, photometric="rgb", tile=(256, 256))
    with TileStore.open(root / "glass.part", {}, Size(800, 700), 256, "rgb") as store:
        for row, column in np.ndindex(store.grid):
            store.put_blank(row, column, (238, 238, 238))
        write_ome_tiff(store, root / "glass.ome.tiff", mpp=0.5, metadata={"notice": "a test"})
        store.discard()
    return root


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is small enough for large images in a test."""
    return write_bundle(tmp_path_factory.mktemp("model") / "quick", small_recipe("quick"))


@pytest.fixture(scope="module")
def staining(served: Path, quick: Path, start: Callable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server = start(tmp_path_factory.mktemp("state"), of=served, models=[quick, DEFAULT], upload_bytes=6 << 20)
    server.quick = read_card(quick).hash[:12]
    yield server
    server.stop()


def ask(url: str, method: str, path: str, **more: Any) -> Any:
    return httpx.request(method, url + path, headers={"Origin": url, "Accept-Language": "en"}, timeout=60, **more)


def add(server: Any, name: str, **more: Any) -> Any:
    asked = {
        "image": server.id_of(name),
        "model": server.quick,
        "region": None,
        "mpp": 0.5,
        "dab": False,
        "everywhere": False,
    }
    return ask(server.url, "POST", "/api/stain/jobs", json=asked | more)


def status(url: str, job: str) -> dict[str, Any]:
    return ask(url, "GET", f"/api/stain/jobs/{job}").json()


def wait(url: str, job: str, until: Callable[[dict[str, Any]], Any], seconds: float = 240) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while not until(now := status(url, job)):
        assert time.monotonic() < end, now
        time.sleep(0.05)
    return now


def over(now: dict[str, Any]) -> bool:
    return now["state"] in OVER


def upload(server: Any, name: str, body: Any, **more: Any) -> Any:
    return ask(server.url, "POST", "/api/stain/uploads", params={"name": name}, content=body, **more)


def left(server: Any, state: Path) -> list[Path]:
    return [path for path in (state / "uploads").rglob("*") if path.name.startswith(".")]


@pytest.mark.slow
def test_a_job_stains_and_its_result_lies_beside_its_source(staining, served: Path):
    job = add(staining, "small.png", dab=True, model=MODEL).json()["id"]
    now = wait(staining.url, job, over)
    assert now["state"] == "done", now
    assert now["files"] == ["slide", "dab", "report"]
    assert now["result"]["kind"] == "virtual"
    source = staining.get(f"/{now['view']}")
    assert source.status_code == 200
    assert now["result"]["id"] in source.text
    # Not to the other image of that name.
    assert now["result"]["id"] not in staining.get(f"/view/{staining.id_of('blocks/small.png')}").text
    answer = ask(staining.url, "GET", f"/api/stain/jobs/{job}/files/slide")
    assert 'filename="small.ome.tiff"' in answer.headers["content-disposition"]
    with tifffile.TiffFile(io.BytesIO(answer.content)) as tiff:
        assert tiff.pages[0].shape[:2] == (326, 435)
        assert NOTICE in tiff.ome_metadata
    report = ask(staining.url, "GET", f"/api/stain/jobs/{job}/files/report").json()
    assert report["provenance"]["bundle_hash"].startswith(MODEL)
    assert str(served) not in json.dumps(now)
    assert ask(staining.url, "DELETE", f"/api/stain/jobs/{job}").status_code == 200
    assert ask(staining.url, "GET", f"/api/stain/jobs/{job}").status_code == 404
    assert now["result"]["id"] not in staining.get("/?q=small").text


@pytest.mark.slow
def test_a_second_job_waits_and_a_cancelled_one_goes_on(staining):
    first = add(staining, "large.png").json()["id"]
    wait(staining.url, first, lambda now: now["state"] == "running")
    second = add(staining, "small.png").json()["id"]
    waiting = status(staining.url, second)
    assert (waiting["state"], waiting["message"]) == ("waiting", "Jobs ahead: 1")
    assert ask(staining.url, "DELETE", f"/api/stain/jobs/{second}").status_code == 409
    part = wait(staining.url, first, lambda now: now["partial"] and now["partial"]["there"] and now["done"] > 140)
    assert part["partial"]["there"] < part["partial"]["all"]
    tile = ask(staining.url, "GET", f"/api/stain/jobs/{first}/tiles/0/0/0.webp")
    with Image.open(io.BytesIO(tile.content)) as shown:
        assert shown.getexif()[0x010E] == NOTICE
        opaque = np.asarray(shown.convert("RGBA"))[..., 3] > 0
    assert opaque.any()
    assert ask(staining.url, "GET", f"/api/stain/jobs/{first}/tiles/9/0/0.webp").status_code == 404
    assert ask(staining.url, "POST", f"/api/stain/jobs/{first}/cancel").status_code == 200
    assert wait(staining.url, second, over)["state"] == "done"
    kept = status(staining.url, first)
    assert kept["state"] == "cancelled"
    assert kept["partial"]["there"] >= part["partial"]["there"]
    assert ask(staining.url, "POST", f"/api/stain/jobs/{first}/cancel").status_code == 409
    assert ask(staining.url, "POST", f"/api/stain/jobs/{first}/resume").status_code == 200
    assert wait(staining.url, first, over)["state"] == "done"
    assert ask(staining.url, "POST", f"/api/stain/jobs/{first}/resume").status_code == 409


@pytest.mark.slow
def test_the_chosen_image_of_a_file_of_several_is_stained(staining):
    job = add(staining, "fields.ome.tif#1").json()["id"]
    now = wait(staining.url, job, over)
    assert now["state"] == "done", now
    answer = ask(staining.url, "GET", f"/api/stain/jobs/{job}/files/slide")
    with tifffile.TiffFile(io.BytesIO(answer.content)) as tiff:
        assert tiff.pages[0].shape[:2] == (320, 280)
    assert now["result"]["id"] in staining.get(f"/view/{staining.id_of('fields.ome.tif#1')}").text
    assert now["result"]["id"] not in staining.get(f"/view/{staining.id_of('fields.ome.tif#0')}").text


@pytest.mark.slow
def test_only_the_region_is_stained(staining, tmp_path: Path):
    region = {"x": 150, "y": 100, "width": 100, "height": 90.4}
    job = add(staining, "small.png", region=region).json()["id"]
    assert wait(staining.url, job, over)["state"] == "done"
    (tmp_path / "part.ome.tiff").write_bytes(ask(staining.url, "GET", f"/api/stain/jobs/{job}/files/slide").content)
    rgb = tifffile.imread(tmp_path / "part.ome.tiff", key=0).astype(int)
    assert np.abs(rgb[30:60, 175:220] - 200).max() < 8
    assert np.abs(rgb[110:180, 160:240] - 200).mean() > 8
    assert "1 outlines" in read_metadata(tmp_path / "part.ome.tiff")["region"]


@pytest.mark.slow
def test_a_slide_that_fails_says_why_without_its_place(staining, served: Path):
    job = add(staining, "glass.ome.tiff").json()["id"]
    now = wait(staining.url, job, over)
    assert now["state"] == "failed"
    assert "No tissue was found" in now["message"]
    assert str(served) not in now["message"]
    assert ask(staining.url, "POST", f"/api/stain/jobs/{job}/resume").status_code == 200
    assert wait(staining.url, job, over)["state"] == "failed"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"image": "nothing"}, 404),
        ({"model": "../x"}, 422),
        ({"mpp": None}, 400),
        ({"mpp": -1}, 400),
        ({"mpp": 1e99}, 400),
        ({"region": [1, 2]}, 400),
        ({"region": {"x": 0, "y": 0, "width": True, "height": 9}}, 400),
        ({"region": {"x": 1e8, "y": 0, "width": 100, "height": 100}}, 400),
        ({"region": {"x": 0, "y": 0, "width": 3, "height": 3}}, 400),
    ],
)
def test_a_job_of_nonsense_is_refused(staining, more: dict[str, Any], code: int):
    answer = add(staining, "small.png", **more)
    assert answer.status_code == code
    assert answer.json()["error"]


class Process:
    """``restain serve`` as a user starts it."""

    def __init__(self, folder: Path, state: Path, model: Path) -> None:
        self.run = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "restain",
                "serve",
                str(folder),
                "--state",
                str(state),
                "--port",
                "0",
                "--model",
                str(model),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1"},
        )
        assert self.run.stdout is not None
        self.url = re.search(r"http://\S+?(?=/ )", self.run.stdout.readline())[0]

    def kill(self) -> None:
        self.run.send_signal(signal.SIGKILL)
        self.run.wait()
        self.run.stdout.close()


@pytest.mark.slow
def test_a_job_goes_on_after_the_server_was_killed_and_is_the_same(staining, served: Path, quick: Path, tmp_path: Path):
    whole = add(staining, "large.png").json()["id"]
    assert wait(staining.url, whole, over)["state"] == "done"
    expected = ask(staining.url, "GET", f"/api/stain/jobs/{whole}/files/slide").content
    server = Process(served, tmp_path, quick)
    try:
        asked = {
            "image": staining.id_of("large.png"),
            "model": staining.quick,
            "region": None,
            "mpp": 0.5,
            "dab": False,
            "everywhere": False,
        }
        job = ask(server.url, "POST", "/api/stain/jobs", json=asked).json()["id"]
        before = wait(server.url, job, lambda now: now["partial"] and now["partial"]["there"] and now["done"] > 140)
    finally:
        server.kill()
    server = Process(served, tmp_path, quick)
    try:
        after = wait(server.url, job, lambda now: now["partial"])
        assert after["partial"]["there"] >= before["partial"]["there"]
        assert wait(server.url, job, over)["state"] == "done"
        got = ask(server.url, "GET", f"/api/stain/jobs/{job}/files/slide").content
    finally:
        server.kill()
    with tifffile.TiffFile(io.BytesIO(expected)) as one, tifffile.TiffFile(io.BytesIO(got)) as other:
        assert np.array_equal(one.pages[0].asarray(), other.pages[0].asarray())


@pytest.mark.slow
def test_an_upload_is_kept_stained_and_deleted(staining):
    answer = upload(staining, "../../etc/切片 1.png", png(300, 400))
    assert answer.status_code == 201
    image = answer.json()["image"]
    assert "切片 1.png" in staining.get(f"/stain?image={image}").text
    asked = {"image": image, "model": staining.quick, "region": None, "mpp": 0.5, "dab": False, "everywhere": True}
    job = ask(staining.url, "POST", "/api/stain/jobs", json=asked).json()["id"]
    assert ask(staining.url, "DELETE", f"/api/stain/uploads/{image}").status_code == 409
    assert wait(staining.url, job, over)["state"] == "done"
    assert ask(staining.url, "DELETE", f"/api/stain/uploads/{image}").status_code == 200
    assert ask(staining.url, "DELETE", f"/api/stain/uploads/{image}").status_code == 404
    assert staining.get(f"/stain?image={image}").status_code == 404
    # Its job's page says so.
    assert staining.get(f"/stain/{job}").status_code == 200
    assert ask(staining.url, "DELETE", f"/api/stain/uploads/{staining.id_of('small.png')}").status_code == 404


def bomb() -> bytes:
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(9000))),
        (b"IEND", b""),
    )
    chunks = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(shape: tuple[int, int] = (600, 700), **more: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, tissue(*shape), tile=(256, 256), photometric="rgb", **more)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("bomb.png", bomb(), 422),
        ("cut.png", png(300, 400)[:4000], 422),
        ("cut.tif", tiff()[:100_000], 422),
        ("head.svs", tiff()[:200], 422),
        ("grey.tif", b"II*\0" + b"\xff" * 400, 422),
        ("empty.png", b"", 415),
        ("script.png", b"<script>alert(1)</script>", 415),
        ("page.html", b"<html>", 415),
        ("slide.mrxs", b"\xff\xd8\xff", 415),
        ("noend", png(100, 100), 415),
        ("large.png", b"\x89PNG\r\n\x1a\n" + bytes(7 << 20), 413),
    ],
)
def test_what_is_no_slide_is_refused_and_nothing_of_it_stays(staining, tmp_path_factory, name, body, code):
    before = staining.get("/?q=uploads/").text.count('class="card')
    answer = upload(staining, name, body)
    assert answer.status_code == code, answer.text
    assert answer.json()["error"]
    assert "/" not in answer.json()["error"].replace("px/", "")
    assert staining.get("/?q=uploads/").text.count('class="card') == before


def test_an_upload_without_a_length_is_measured_as_it_comes(staining):
    def endless() -> Iterator[bytes]:
        yield b"\x89PNG\r\n\x1a\n"
        for _ in range(7):
            yield bytes(1 << 20)

    assert upload(staining, "endless.png", endless()).status_code == 413


def test_content_decides_and_a_stalled_upload_ends_without_blocking_others(staining, tmp_path: Path, monkeypatch):
    buffer = io.BytesIO()
    Image.fromarray(tissue(64, 64)).save(buffer, "JPEG")
    assert upload(staining, "o'brien.png", buffer.getvalue()).status_code == 201
    monkeypatch.setattr(uploads, "IDLE_S", 0.2)
    store = uploads.Uploads(tmp_path, 1 << 20)

    async def stalled():
        yield b"\x89PNG"
        await asyncio.sleep(60)

    async def image():
        yield buffer.getvalue()

    async def both() -> list[Any]:
        waiting = [store.receive("anna", f"{n}.png", stalled(), None) for n in range(uploads.MAX_UPLOADS_OF_ONE + 1)]
        return await asyncio.gather(*waiting, store.receive("bo", "a.jpg", image(), None), return_exceptions=True)

    *refused, kept = asyncio.run(both())
    assert sorted(one.status for one in refused) == [408] * uploads.MAX_UPLOADS_OF_ONE + [429]
    assert kept.read_bytes() == buffer.getvalue()


def test_an_upload_that_breaks_off_leaves_nothing(served: Path, start: Callable, tmp_path: Path):
    server = start(tmp_path, of=served, models=[DEFAULT])
    try:
        raw = socket.create_connection(("127.0.0.1", server.port))
        head = f"POST /api/stain/uploads?name=cut.png HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nOrigin: {server.url}\r\n"
        raw.sendall(head.encode() + b"Content-Length: 9000000\r\n\r\n" + png(300, 400))
        end = time.monotonic() + 60
        while not any((tmp_path / "uploads").iterdir()):
            assert time.monotonic() < end
        raw.close()
        while any((tmp_path / "uploads").iterdir()):
            assert time.monotonic() < end
            time.sleep(0.01)
        # What a killed server leaves is gone with the next one.
        (tmp_path / "uploads" / ".left").mkdir()
    finally:
        server.stop()
    start(tmp_path, of=served, models=[DEFAULT]).stop()
    assert not any((tmp_path / "uploads").iterdir())


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\slides\\a.svs", "a.svs"),
        (".hidden.png", "hidden.png"),
        ("a\x00b\n<c>:d.PNG", "a_b__c__d.PNG"),
        ("切片.ome.tiff", "切片.ome.tiff"),
        ("x.dab.ome.tiff", "x_dab.ome.tiff"),
        ("..png", "image.png"),
    ],
)
def test_names_are_made_safe(name: str, safe: str):
    try:
        assert safe_name(name) == safe
    except RequestError:
        assert name == "..png"


def test_a_long_name_is_shortened():
    assert len(safe_name("漢" * 400 + ".png").encode()) <= 150


def test_a_foreign_page_starts_nothing(staining):
    answer = httpx.post(staining.url + "/api/stain/jobs", json={}, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403


def test_without_a_model_there_is_no_staining_page(server):
    assert server.get("/stain").status_code == 404
    assert "/stain" not in server.get("/").text


@pytest.mark.slow
def test_an_orphaned_worker_ends_with_its_server(tmp_path: Path):
    (tmp_path / "job.json").write_text("{}")
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import restain.web.staining.worker as w, time; w.stain = lambda *a: time.sleep(600); "
            "w.main(w.Path(w.sys.argv[1]))",
            str(tmp_path / "job.json"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert worker.poll() is None
    worker.stdin.close()
    assert worker.wait(60) == 3

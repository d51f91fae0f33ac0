"""A study to be read in the browser, and a server of it; what betrays an image has names that no page holds by chance."""

from __future__ import annotations

import atexit
import json
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from restain.images import write_png
from restain.review import Study, create_study, read_definition
from restain.web.accounts.account import Role
from restain.web.accounts.store import AccountStore
from restain.web.database import open_database

from ..samples import tissue_picture
from .conftest import Settings, create_app, httpx, uvicorn

MODALITIES = {"chemical": "zinnober", "virtual": "quitte"}
"""Parts of file names that stand for a modality."""
QUESTIONS = ["her2", "modality", "quality", {"kind": "text", "name": "remarks"}]


def write_material(folder: Path, cases: int, side: int = 640) -> list[dict[str, Any]]:
    """StudyTiles of two modalities: chemical ones larger, with metadata that name them."""
    folder.mkdir(parents=True)
    images = []
    for case in range(cases):
        for modality, word in MODALITIES.items():
            more = 16 if modality == "chemical" else 0
            rgb = tissue_picture(
                side + more, side + more, case, low=(90 + 9 * case, 50, 20 + more), high=(220, 190, 170)
            )
            path = folder / f"{word}-{case}.png"
            write_png(path, rgb, {"Title": f"{modality} of pankow-{case}"}, mpp=0.5)
            images.append({"path": path.name, "case": f"pankow-{case}", "modality": modality, "level": f"{case % 4}"})
    levels = ["0", "1+", "2+", "3+"]
    return [image | {"level": levels[int(image["level"])]} for image in images]


@cache
def _template() -> Path:
    """The study that most tests begin with: made once, since its tiles take seconds."""
    folder = Path(tempfile.mkdtemp(prefix="restain-study-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _make_study(folder, 3)
    return folder


def make_study(folder: Path, cases: int = 3, **given: Any) -> Path:
    """The folder of a study; its images lie beside it."""
    if cases != 3 or given:
        return _make_study(folder, cases, **given)
    shutil.copytree(_template(), folder, dirs_exist_ok=True)
    with closing(sqlite3.connect(folder / "treptow" / "study.sqlite")) as store, store:
        store.execute("UPDATE images SET path = replace(path, ?, ?)", (str(_template()), str(folder)))
    return folder / "treptow"


def _make_study(folder: Path, cases: int, **given: Any) -> Path:
    images = write_material(folder / "weissensee", cases)
    values = {
        "title": "HER2 on virtual IHC",
        "images": images,
        "questions": QUESTIONS,
        "readers": ["anna", "bo"],
        "washout_days": 0,
        "seed": 3,
    } | given
    file = folder / "weissensee" / "study.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    trial = folder / "treptow"
    create_study(read_definition(file), trial).close()
    return trial


ACCOUNTS = {"anna": Role.READER, "bo": Role.READER, "cleo": Role.READER, "olga": Role.OWNER}
"""Cleo reads in no study here."""
PASSWORD = "brown membranes all around"


def make_accounts(state: Path) -> None:
    state.mkdir(exist_ok=True)
    database = open_database(state)
    for name, role in ACCOUNTS.items():
        AccountStore(database).add(name, role, PASSWORD)
    database.close()


def sign_in(context: Any, url: str, name: str) -> None:
    """Into a browser's context."""
    page = context.new_page()
    page.goto(f"{url}/review")
    page.locator("#name").fill(name)
    page.locator("#password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/review")
    page.close()


class ReviewServer:
    """A server of studies, with accounts; ``study`` is the address of the first."""

    def __init__(self, folder: Path, studies: list[Path]) -> None:
        (folder / "slides").mkdir(exist_ok=True)
        make_accounts(folder / "state")
        app = create_app(Settings(folder / "slides", folder / "state", studies=studies))
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        with Study.open(studies[0]) as study:
            self.study = study.id

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def reader(self, name: str) -> Reader:
        return Reader(self, name)


class Reader:
    """What a reader's browser does, and all that it heard."""

    def __init__(self, server: ReviewServer, name: str) -> None:
        self._server = server
        self._client = httpx.Client(base_url=server.url, headers={"Origin": server.url}, timeout=30)
        form = re.search(r'name="csrf" value="(\w+)"', self._client.get("/account/sign-in").text)
        given = {"name": name, "password": PASSWORD, "csrf": form[1] if form else ""}
        assert self._client.post("/account/sign-in", data=given).status_code == 303
        self.heard: list[Any] = []

    def send(self, method: str, path: str, content: Any = None, language: str = "en", **more: Any) -> Any:
        if content is not None:
            more["content"] = json.dumps(content)
        answer = self._client.request(method, path, headers={"Accept-Language": language}, **more)
        self.heard.append(answer)
        return answer

    def get(self, path: str, language: str = "en") -> Any:
        return self.send("GET", path, language=language)

    def post(self, path: str, content: Any, language: str = "en") -> Any:
        return self.send("POST", f"/api/review/{self._server.study}/{path}", content, language)

    def next(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.post("next", {}).json()
        return answer

    def open(self, token: str, language: str = "en") -> Any:
        return self.post(f"{token}/open", {}, language)

    def put(self, token: str, question: str, body: bytes) -> Any:
        path = f"/api/review/{self._server.study}/{token}/answers/{question}"
        return self.send("PUT", path, content=None, data=body)

    def answer(self, token: str, question: str, value: str, **more: Any) -> Any:
        content = {"value": value, "replaces": [None], "seconds": 1.5} | more
        return self.send("PUT", f"/api/review/{self._server.study}/{token}/answers/{question}", content)

    def tile(self, token: str, which: str = "1/0/0") -> Any:
        return self.get(f"/api/review/{self._server.study}/{token}/tiles/{which}.jpg")


class ReviewProcess:
    """A server of one study as a process of its own, which can be killed and started again on its port."""

    def __init__(self, folder: Path, trial: Path) -> None:
        (folder / "slides").mkdir(exist_ok=True)
        self._folder, self._trial = folder, trial
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        make_accounts(folder / "state")
        self.start()

    def start(self) -> None:
        about = ["--port", str(self._port), "--state", str(self._folder / "state"), "--study", str(self._trial)]
        command = [sys.executable, "-m", "restain", "serve", str(self._folder / "slides"), *about]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while True:
            try:
                httpx.get(f"{self.url}/static/icon.svg")
                return
            except httpx.TransportError:
                assert self._process.poll() is None
                time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self.kill()

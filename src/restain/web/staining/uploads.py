"""Uploaded images: streamed to disk, checked, then added to the library."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from restain.errors import RestainError
from restain.files import make_folder
from restain.geometry import Point, Region, Size
from restain.images import TIFF_MAGIC, picture_kind
from restain.slides import open_slide
from restain.slides.find import ONE_FILE_SUFFIXES
from restain.web.errors import RequestError
from restain.web.tiles import open_bounded, readable

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", *ONE_FILE_SUFFIXES)
"""Suffixes without formats of several files (MIRAX, DICOM)."""
MIN_FREE = 1 << 30
"""Bytes that stay free on the disk."""
MAX_UPLOADS = 16
MAX_UPLOADS_OF_ONE = 4
"""Uploads at a time in all, and of one account."""
IDLE_S = 60.0
"""An upload ends after so long without data."""
MAX_NAME = 150
"""Bytes of a name; names of results are longer."""
MAX_SIDE, MAX_PX = 1 << 20, 1 << 38
"""Limits of level 0 in px; no scanner exceeds them, but a header can state any size."""
_CHUNK = 4 << 20
_SPOT = 64


class Uploads:
    """The folder of uploads, ``ID/NAME`` each; an unfinished one is in ``.ID`` and not listed."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._running: Counter[str] = Counter()

    def prepare(self) -> None:
        """Make the folder and delete unfinished uploads of a killed server. Raises RestainError if that fails."""
        for unfinished in make_folder(self.folder).glob(".*"):
            shutil.rmtree(unfinished, ignore_errors=True)

    async def receive(self, owner: str, name: str, parts: AsyncIterator[bytes], length: int | None) -> Path:
        """Save an upload and give its path; nothing is kept of a refused or interrupted one.

        Args:
            owner: name of the account.
            name: any text from the browser.
            parts: the body.
            length: bytes of the body, if the browser states it.

        Raises:
            RequestError: 408, 413, 415, 422, 429 or 507.
            ClientDisconnect: if the browser disconnected.
        """
        safe = safe_name(name)
        if length is not None and length > self.max_bytes:
            raise RequestError(413, "error.upload_size", name=safe, most=format_bytes(self.max_bytes))
        for count, most in ((self._running[owner], MAX_UPLOADS_OF_ONE), (self._running.total(), MAX_UPLOADS)):
            if count >= most:
                raise RequestError(429, "error.upload_many", most=most)
        self._running[owner] += 1
        identity = secrets.token_hex(5)
        hidden = self.folder / f".{identity}"
        try:
            self._check_space(safe, length or 0)
            hidden.mkdir()
            await self._write(hidden / safe, parts, length)
            await run_in_threadpool(check_image, hidden / safe)
            hidden.rename(self.folder / identity)
            return self.folder / identity / safe
        except OSError:
            raise RequestError(507, "error.upload_space", name=safe) from None
        finally:
            self._running[owner] -= 1
            # Not in a thread: when the server ends, nothing is awaited any more.
            shutil.rmtree(hidden, ignore_errors=True)

    def remove(self, identity: str) -> None:
        """Delete an upload, if it exists."""
        if re.fullmatch(r"[0-9a-f]{10}", identity):
            shutil.rmtree(self.folder / identity, ignore_errors=True)

    def _check_space(self, name: str, wanted: int) -> None:
        if shutil.disk_usage(self.folder).free - wanted < MIN_FREE:
            raise RequestError(507, "error.upload_space", name=name)

    async def _write(self, path: Path, parts: AsyncIterator[bytes], length: int | None) -> None:
        received, chunk = 0, bytearray()
        refusal: RequestError | None = None

        def flush() -> None:
            if received == len(chunk):
                check_content(path.name, bytes(chunk[:16]))
            self._check_space(path.name, 0)
            with open(path, "ab") as file:
                file.write(chunk)
            chunk.clear()

        async for part in _prompt(parts):
            received += len(part)
            if received > self.max_bytes:
                raise RequestError(413, "error.upload_size", name=path.name, most=format_bytes(self.max_bytes))
            if refusal is not None:
                continue
            chunk += part
            if len(chunk) >= _CHUNK:
                try:
                    await run_in_threadpool(flush)
                except RequestError as error:
                    # A browser reads the answer only after it has sent everything.
                    refusal = error
        if refusal is not None:
            raise refusal
        if length is not None and received != length:
            raise ClientDisconnect
        await run_in_threadpool(flush)


async def _prompt(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The parts. Raises RequestError 408 if one takes longer than :data:`IDLE_S`."""
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RequestError(408, "error.upload_idle", seconds=f"{IDLE_S:g}") from None
        yield part


def safe_name(name: str) -> str:
    """A file name without folders, hidden parts and characters that some system forbids.

    Raises:
        RequestError: 415 if the suffix is not one of :data:`SUFFIXES`.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    kept = "".join("_" if c in '<>:"|?*' or unicodedata.category(c)[0] == "C" else c for c in last)
    # Suffixes that mark results.
    kept = re.sub(r"(^|\.)(dab|tissue|ood)(?=\.)", r"_\2", kept.strip(". "), flags=re.IGNORECASE)
    suffix = next((one for one in SUFFIXES if kept.lower().endswith(one)), None)
    if suffix is None:
        raise RequestError(415, "error.upload_kind", name=kept[-80:] or "?", kinds=" ".join(SUFFIXES))
    stem = kept[: -len(suffix)].encode("utf-8", "replace")[: MAX_NAME - len(suffix)].decode("utf-8", "ignore")
    return (stem.strip(". ") or "image") + kept[-len(suffix) :]


def check_content(name: str, head: bytes) -> None:
    """Raise RequestError 415 if the first bytes of a file are of no image, whatever its suffix."""
    if not head.startswith(TIFF_MAGIC) and picture_kind(head) is None:
        raise RequestError(415, "error.upload_content", name=name, kinds=" ".join(SUFFIXES))


def check_image(path: Path) -> None:
    """Raise RequestError 422 if an image is damaged, truncated or too large: by its header, then at three places.

    Of a file that holds several images, all are checked.
    """
    with readable(path):
        with open_slide(path, inspect=True, header_only=True) as slide:
            count = len(slide.images)
        for end in [f"#{number}" for number in range(count)] or [""]:
            _check_one(path.with_name(path.name + end))


def _check_one(path: Path) -> None:
    with open_bounded(path)[0] as slide:
        size = slide.size
        if max(size.width, size.height) > MAX_SIDE or size.width * size.height > MAX_PX:
            raise RequestError(422, "error.upload_extent", name=path.name)
        if truncated := [one for one in slide.faults if "truncated" in one]:
            raise RestainError(truncated[0])
        shown = slide.taken_at(1.0)
        spot = Size(min(_SPOT, size.width), min(_SPOT, size.height))
        for share in (0.0, 0.5, 1.0):
            at = Point(int((size.width - spot.width) * share), int((size.height - spot.height) * share))
            shown.read(Region(at, spot), 1.0)


def format_bytes(size: int) -> str:
    return f"{size / (1 << 30):.3g} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.3g} MiB"

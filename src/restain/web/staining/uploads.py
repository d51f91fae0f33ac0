"""Images that come from a browser: streamed to disk, looked at by their header, and only then in the library."""

from __future__ import annotations

import re
import secrets
import shutil
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from restain.errors import RestainError
from restain.files import make_folder
from restain.geometry import Point, Region, Size
from restain.images import TIFF_MAGIC, picture_kind
from restain.register.warp import in_pixels
from restain.slides.find import ONE_FILE_SUFFIXES
from restain.web.faults import Fault
from restain.web.tiles import open_checked, readable

KINDS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "WebP": (".webp",),
    "TIFF": (".tif", ".tiff", *ONE_FILE_SUFFIXES),
}
"""Suffixes by what a file holds. Not the formats of several files (MIRAX, DICOM): one file is uploaded."""
SUFFIXES = tuple(suffix for suffixes in KINDS.values() for suffix in suffixes)

KEEP_FREE = 1 << 30
"""Bytes that stay free on the disk."""
AT_ONCE = 4
LONGEST_NAME = 150
"""Bytes of a name: results are named after it, with endings of their own."""
LONGEST_SIDE, MOST_PX = 1 << 20, 1 << 38
"""Of level 0; no scanner makes more, and a header can say anything."""
_CHUNK = 4 << 20
_SPOT = 64


class Uploads:
    """The folder of uploads, ``ID/NAME`` each; what is not whole yet is in ``.ID`` and never seen."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._running = 0

    def prepare(self) -> None:
        """Make the folder, and throw away what a killed server left half-written.

        Raises:
            RestainError: if that fails.
        """
        try:
            make_folder(self.folder)
            for left in self.folder.glob(".*"):
                shutil.rmtree(left, ignore_errors=True)
        except OSError as fault:
            raise RestainError(f"{self.folder} cannot be made ({fault.strerror}).") from None

    async def take(self, name: str, parts: AsyncIterator[bytes], declared: int | None) -> Path:
        """Keep an upload and give its place; of a refused one, or one that breaks off, nothing stays.

        Args:
            name: as the browser says it; anything.
            parts: the body.
            declared: its length in bytes, where the browser says it.

        Raises:
            Fault: 413, 415, 422, 429 or 507, with what is wrong.
            ClientDisconnect: if the browser went away.
        """
        safe = safe_name(name)
        if declared is not None and declared > self.most_bytes:
            raise Fault(413, "fault.upload_size", name=safe, most=_in_words(self.most_bytes))
        if self._running >= AT_ONCE:
            raise Fault(429, "fault.upload_many", most=AT_ONCE)
        self._running += 1
        identity = secrets.token_hex(5)
        hidden = self.folder / f".{identity}"
        try:
            await run_in_threadpool(self._begin, hidden, safe, declared or 0)
            try:
                await self._write(hidden / safe, parts, declared)
                await run_in_threadpool(check, hidden / safe)
            except OSError:
                raise Fault(507, "fault.upload_space", name=safe) from None
            final = self.folder / identity
            hidden.rename(final)
            return final / safe
        finally:
            self._running -= 1
            # Not in a thread: nothing is awaited any more when the server ends.
            shutil.rmtree(hidden, ignore_errors=True)

    def remove(self, identity: str) -> None:
        """Remove an upload; one that is not there is removed."""
        if re.fullmatch(r"[0-9a-f]{10}", identity):
            shutil.rmtree(self.folder / identity, ignore_errors=True)

    def _begin(self, hidden: Path, name: str, length: int) -> None:
        self._room(name, length)
        try:
            hidden.mkdir()
        except OSError:
            raise Fault(507, "fault.upload_space", name=name) from None

    def _room(self, name: str, wanted: int) -> None:
        if shutil.disk_usage(self.folder).free - wanted < KEEP_FREE:
            raise Fault(507, "fault.upload_space", name=name)

    async def _write(self, path: Path, parts: AsyncIterator[bytes], declared: int | None) -> None:
        done, waiting = 0, bytearray()
        refused: Fault | None = None

        def flush() -> None:
            self._room(path.name, 0)
            with open(path, "ab") as file:
                file.write(waiting)

        async for part in parts:
            done += len(part)
            if done > self.most_bytes:
                raise Fault(413, "fault.upload_size", name=path.name, most=_in_words(self.most_bytes))
            if refused is not None:
                continue
            waiting += part
            if len(waiting) >= _CHUNK:
                try:
                    if done == len(waiting):
                        check_kind(path.name, bytes(waiting[:16]))
                    await run_in_threadpool(flush)
                except Fault as fault:
                    # A browser hears the answer only when it has sent all.
                    refused = fault
                waiting.clear()
        if refused is not None:
            raise refused
        if declared is not None and done != declared:
            raise ClientDisconnect
        if done == len(waiting):
            check_kind(path.name, bytes(waiting[:16]))
        await run_in_threadpool(flush)


def safe_name(name: str) -> str:
    """A file name of what a browser calls its file: no folders, nothing hidden, no characters that a system forbids.

    Raises:
        Fault: 415, if its ending is not one of :data:`SUFFIXES`.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    kept = "".join("_" if c in '<>:"|?*' or unicodedata.category(c)[0] == "C" else c for c in last)
    # Endings that say of a file that it was made of another one.
    kept = re.sub(r"(^|\.)(dab|tissue|ood)(?=\.)", r"_\2", kept.strip(". "), flags=re.IGNORECASE)
    suffix = next((one for one in SUFFIXES if kept.lower().endswith(one)), None)
    if suffix is None:
        raise Fault(415, "fault.upload_kind", name=kept[-80:] or "?", kinds=" ".join(SUFFIXES))
    stem = kept[: -len(suffix)].encode("utf-8", "replace")[: LONGEST_NAME - len(suffix)].decode("utf-8", "ignore")
    return (stem.strip(". ") or "image") + kept[-len(suffix) :]


def check_kind(name: str, head: bytes) -> None:
    """Refuse a file that does not begin as its name ends.

    Raises:
        Fault: 415.
    """
    kind = "TIFF" if head.startswith(TIFF_MAGIC) else picture_kind(head)
    if kind is None or not name.lower().endswith(KINDS[kind]):
        raise Fault(415, "fault.upload_content", name=name, kinds=" ".join(SUFFIXES))


def check(path: Path) -> None:
    """Refuse what cannot be read, is truncated, or would not fit the memory: by its header, then at three places.

    Raises:
        Fault: 422, with what is wrong, without the folders of this machine.
    """
    with readable(path), open_checked(path)[0] as slide:
        size = slide.size
        if max(size.width, size.height) > LONGEST_SIDE or size.width * size.height > MOST_PX:
            raise Fault(422, "fault.upload_extent", name=path.name)
        if cut := [one for one in slide.faults if "truncated" in one]:
            raise RestainError(cut[0])
        shown = in_pixels(slide)
        spot = Size(min(_SPOT, size.width), min(_SPOT, size.height))
        for share in (0.0, 0.5, 1.0):
            at = Point(int((size.width - spot.width) * share), int((size.height - spot.height) * share))
            shown.read(Region(at, spot), 1.0)


def _in_words(size: int) -> str:
    return f"{size / (1 << 30):.3g} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.3g} MiB"

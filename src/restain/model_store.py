"""Where models are found: the shipped one, those of a checkout, downloaded ones; and how one is downloaded.

A downloaded model is a zip archive of one bundle. It is unpacked under the store (:func:`store_folder`), beside a note of
where it came from. The archive's SHA-256 must be known beforehand.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

from restain.errors import RestainError
from restain.files import file_digest, make_folder, whole_folder, write_json
from restain.progress import Progress

DEFAULT = Path(__file__).parent / "default_bundle"
CARD = "card.json"
SOURCE = "source.json"
"""Note beside a downloaded bundle's files: URL and SHA-256 of its archive."""

_TIMEOUT_S = 30
_CHUNK = 1 << 18
_LARGEST = 4 << 30
"""Bytes that an archive may unpack to."""
_HASH = re.compile(r"[0-9a-fA-F]{64}")
_NAME = re.compile(r"\w[\w.+-]*")


def store_folder() -> Path:
    """Folder of the downloaded models: ``RESTAIN_MODELS``, else ``restain/models`` in the user's data folder."""
    if given := os.environ.get("RESTAIN_MODELS"):
        return Path(given)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "restain" / "models"


def _shelves() -> list[Path]:
    """Folders of models by name, the first counting most: of the working folder, of a checkout, of the store."""
    return [Path("bundles"), Path(__file__).parents[2] / "bundles", store_folder()]


def models_at_hand() -> dict[str, Path]:
    """The bundles that a name alone finds: name to folder, ``default`` first."""
    found = {"default": DEFAULT}
    for shelf in _shelves():
        for card in sorted(shelf.glob(f"*/{CARD}")):
            found.setdefault(card.parent.name, card.parent)
    return found


def find_model(model: str | Path | None) -> Path:
    """The folder of a bundle.

    Args:
        model: a folder; the name of a model at hand (:func:`models_at_hand`); ``default`` or None for the shipped one; or
            ``https://…/NAME.zip#sha256=HEX``, which is downloaded unless it was before.

    Raises:
        RestainError: if there is no such model, or it cannot be downloaded.
    """
    text = "default" if model is None else str(model)
    # A path has lost one of the two slashes.
    if match := re.fullmatch(r"(https?):/{1,2}([^#]+)(?:#sha256=(.*))?", text):
        url = f"{match[1]}://{match[2]}"
        if match[3] is None:
            raise RestainError(f"{url}: add the archive's SHA-256, as {url}#sha256=HEX.")
        return get_model(url, match[3])
    if text != "default" and Path(text).exists():
        return Path(text)
    known = models_at_hand()
    if text in known:
        return known[text]
    raise RestainError(f"{text}: is not a model bundle, nor the name of one ({', '.join(known)}).")


def get_model(url: str, sha256: str, *, name: str | None = None, progress: Progress = lambda done, total: None) -> Path:
    """Download a bundle and return its folder; one that is there with this hash is kept.

    An interrupted download resumes where it stopped, if the server supports ranges.

    Args:
        url: ``http(s)`` address of a zip archive of ``card.json``, ``weights.safetensors`` and optional further files, at its
            top or in one folder.
        sha256: of the archive, 64 hexadecimal digits.
        name: of the model; None for that of the archive.
        progress: called with bytes received and in all.

    Raises:
        RestainError: if the address, hash or name is malformed, the server does not answer, the hash is another, the archive
            holds no bundle, or a file cannot be written.
    """
    name = name or Path(unquote(urlsplit(url).path)).stem
    sha256 = sha256.lower()
    if urlsplit(url).scheme not in ("http", "https"):
        raise RestainError(f"{url}: is no http or https address.")
    if not _HASH.fullmatch(sha256):
        raise RestainError(f"{sha256}: a SHA-256 has 64 hexadecimal digits.")
    if not _NAME.fullmatch(name) or name == "default":
        raise RestainError(f"{name!r}: cannot be the name of a model; give another one (--name).")
    folder = store_folder() / name
    if (folder / CARD).is_file() and _source(folder) == sha256:
        return folder
    archive = make_folder(folder.parent) / f".{name}-{sha256[:16]}.download"
    _download(url, archive, progress)
    if (found := file_digest(archive)) != sha256:
        archive.unlink()
        raise RestainError(f"{url}: the SHA-256 of the file is {found}, not {sha256}; it was discarded.")
    _unpack(archive, folder, url, sha256)
    archive.unlink()
    return folder


def _source(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / SOURCE).read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _download(url: str, path: Path, progress: Progress) -> None:
    """Append to ``path`` what it lacks of the file behind ``url``."""
    have = path.stat().st_size if path.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            # Without the status 206 the server sends the whole file again.
            have = have if answer.status == 206 else 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else 0
            with path.open("ab" if have else "wb") as file:
                while piece := answer.read(_CHUNK):
                    file.write(piece)
                    have += len(piece)
                    progress(have, max(total, have))
            if have < total:
                raise RestainError(f"{url}: the connection ended early; re-run the command to resume.")
    except urllib.error.HTTPError as fault:
        if fault.code == 416:
            # All bytes are there already; the hash tells whether they are the right ones.
            return
        raise RestainError(f"{url}: the server answers {fault.code} {fault.reason}.") from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as fault:
        raise RestainError(f"{url}: cannot be downloaded ({getattr(fault, 'reason', fault)}).") from None
    except OSError as fault:
        raise RestainError(f"{path} cannot be written ({fault.strerror or fault}).") from None


def _unpack(archive: Path, folder: Path, url: str, sha256: str) -> None:
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = list(_bundle_entries(packed, url))
            with whole_folder(folder) as partial:
                for entry in entries:
                    with packed.open(entry) as source, (partial / Path(entry.filename).name).open("wb") as target:
                        shutil.copyfileobj(source, target)
                write_json(partial / SOURCE, {"url": url, "sha256": sha256})
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError):
        raise RestainError(f"{url}: is no zip archive of a model bundle.") from None


def _bundle_entries(packed: zipfile.ZipFile, url: str) -> Iterator[zipfile.ZipInfo]:
    """The files beside the archive's card; nothing is written outside the bundle's folder, whatever their names."""
    cards = [entry for entry in packed.infolist() if Path(entry.filename).name == CARD]
    if len(cards) != 1:
        raise RestainError(f"{url}: holds {len(cards)} model bundles; an archive of one is needed.")
    home = Path(cards[0].filename).parent
    files = [entry for entry in packed.infolist() if not entry.is_dir() and Path(entry.filename).parent == home]
    if sum(entry.file_size for entry in files) > _LARGEST:
        raise RestainError(f"{url}: unpacks to more than {_LARGEST >> 30} GiB, which no bundle has.")
    yield from files

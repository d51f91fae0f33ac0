"""The files beside a slide's file that hold its pixels: without them, the file looks like another picture."""

from __future__ import annotations

import re
from pathlib import Path

from restain.errors import RestainError


def check_companions(path: Path) -> None:
    """Refuse a slide's file without what belongs to it, by its suffix: its reader passes it over as a plain picture.

    Raises:
        RestainError: naming the folder or file that is missing, or a kind that no reader here knows.
    """
    check = {".mrxs": _mirax, ".vms": _hamamatsu, ".vmu": _hamamatsu, ".vsi": _olympus}.get(path.suffix.lower())
    if check is not None:
        check(path)


def _mirax(path: Path) -> None:
    folder = path.with_suffix("")
    if not folder.is_dir():
        raise RestainError(f"{path} is a MIRAX slide; the folder {folder} with its pixels is missing.")
    if not (folder / "Slidedat.ini").is_file():
        raise RestainError(f"{path} is a MIRAX slide; {folder / 'Slidedat.ini'} is missing.")


def _hamamatsu(path: Path) -> None:
    try:
        text = path.read_bytes()[: 1 << 20].decode("utf-8", "replace")
    except OSError:
        # The reader tells why.
        return
    for name in re.findall(r"^\s*(?:ImageFile[^=\n]*|MapFile|MacroImage)=[ \t]*(\S[^\r\n]*)", text, re.MULTILINE):
        file = path.parent / name.strip()
        if not file.is_file():
            raise RestainError(f"{path} is a Hamamatsu slide; its file {file} is missing.")
    if "[Virtual Microscope Specimen]" not in text and "[Uncompressed Virtual Microscope Specimen]" not in text:
        raise RestainError(f"{path} is no Hamamatsu slide, as its name says.")


def _olympus(path: Path) -> None:
    raise RestainError(f"{path} is an Olympus slide whose pixels are in .ets files, which restain does not read.")

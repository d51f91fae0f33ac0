"""Metadata of a result in any format that restain writes."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import tifffile

from restain.errors import RestainError
from restain.images import read_text
from restain.slides.dicom import read_dicom_metadata
from restain.slides.writer import NAMESPACE, OME


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a TIFF file or DICOM folder that restain wrote; empty for files of other programs.

    Raises RestainError if the file cannot be read as TIFF, or a file of the folder as DICOM.
    """
    if path.is_dir():
        return read_dicom_metadata(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            xml = tiff.ome_metadata
    except (OSError, ValueError, struct.error, tifffile.TiffFileError):
        raise RestainError(f"{path} cannot be read or is not a TIFF file.") from None
    if xml is None:
        return read_text(path)
    try:
        root = ET.fromstring(xml)
    except ET.ParseError:
        raise RestainError(f"{path} is damaged: its OME-XML cannot be read.") from None
    found = root.findall(f".//{{{OME}}}MapAnnotation[@Namespace='{NAMESPACE}']/{{{OME}}}Value/{{{OME}}}M")
    return {entry.get("K", ""): entry.text or "" for entry in found}

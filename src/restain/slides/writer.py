"""Writes a finished slide as tiled, compressed, pyramidal OME-TIFF in bounded memory.

OME-TIFF (tifffile, Bio-Formats, QuPath) expects reduced levels in the SubIFDs of the first directory, OpenSlide in the
main chain of directories. Here the same directories are both.
"""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tifffile

from restain import __version__
from restain.errors import RestainError
from restain.files import remove_partial, whole_file
from restain.progress import Progress, Steps
from restain.slides.pyramid import kept_metadata, pyramid, tile_steps
from restain.slides.store import TileStore

NAMESPACE = "restain/provenance"
"""Namespace of the OME map annotation with the metadata."""

OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def write_ome_tiff(
    store: TileStore, path: Path, *, mpp: float, metadata: Mapping[str, str], progress: Progress | None = None
) -> None:
    """Write a complete store as a pyramidal OME-TIFF (BigTIFF), which OpenSlide reads too.

    Level 0 takes the store's encoded tiles; each further level is the 2x2 mean of the one before. Memory is some 30
    bytes per tile. A killed call resumes at the next one. ``rgb`` is JPEG, or deflate from a lossless store; ``dab`` is
    ``uint16``, 1e-4 OD per count, deflate (OpenSlide reads no 16-bit TIFF).

    ``mpp`` of level 0 is stored as TIFF resolution and as OME ``PhysicalSizeX/Y``, ``metadata`` as an OME map
    annotation (:func:`read_metadata`). ``notice`` is added if missing, and ``holes`` (JSON: ``[x, y, width, height,
    reason]`` in px of level 0) if the store has any.

    Raises RestainError if tiles are missing, the store is damaged, or the file cannot be written; ValueError if ``mpp``
    is not positive.
    """
    if not mpp > 0:
        raise ValueError(f"mpp must be positive, not {mpp}")
    if store.missing:
        raise RestainError(f"{path} is not written: {store.missing} of its tiles are not in {store.folder} yet.")
    steps = tile_steps(store, progress)
    with ExitStack() as stack:
        levels = pyramid(store, stack, steps)
        # The store's lock excludes another writer of this file.
        remove_partial(path)
        with whole_file(path) as partial:
            _write(levels, partial, mpp, _description(store, path, mpp, kept_metadata(store, metadata)), steps)
            chain_levels(partial)


def chain_levels(path: Path) -> None:
    """Link the SubIFDs of the first directory of a little-endian BigTIFF into its main chain, in place.

    The offset that ends a directory (8 bytes in BigTIFF) is set: the first directory's to the first SubIFD, each
    SubIFD's to the next one, the last one's to 0. Raises ValueError if the file is not such a TIFF or its first
    directory is not the only one in the main chain.
    """
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        if not tiff.is_bigtiff or tiff.byteorder != "<" or len(tiff.pages) != 1:
            raise ValueError(f"{path} is no little-endian BigTIFF of one directory")
        chain = [page.offset, *(page.subifds or ())]
    with open(path, "r+b") as file:
        for here, following in zip(chain, [*chain[1:], 0], strict=True):
            file.seek(here)
            (tags,) = struct.unpack("<Q", file.read(8))
            # Behind the count of tags and the tags of 20 bytes each.
            file.seek(here + 8 + 20 * tags)
            file.write(struct.pack("<Q", following))


def _encoded(level: TileStore, steps: Steps) -> Iterator[bytes]:
    for cell in level.cells():
        # Before the yield: no call follows the last tile.
        steps.add()
        yield level.encoded(*cell)


def _write(levels: list[TileStore], path: Path, mpp: float, description: bytes, steps: Steps) -> None:
    store = levels[0]
    form: dict[str, Any] = {"predictor": 2, "compression": "adobe_deflate"}
    if store.kind == "dab":
        form |= {"dtype": "uint16", "photometric": "minisblack"}
    elif store.quality is None:
        form |= {"dtype": "uint8", "photometric": "rgb"}
    else:
        form = {"dtype": "uint8", "photometric": "ycbcr", "subsampling": (1, 1), "compression": "jpeg"}
    with tifffile.TiffWriter(path, bigtiff=True, byteorder="<", ome=False) as tiff:
        for number, level in enumerate(levels):
            height, width = level.size.height, level.size.width
            # The true ratio, not a power of two: an odd side was rounded up.
            scale_x, scale_y = store.size.width / width, store.size.height / height
            tiff.write(
                _encoded(level, steps),
                shape=(height, width, 3) if store.kind == "rgb" else (height, width),
                tile=(store.tile, store.tile),
                resolution=(1e4 / (mpp * scale_x), 1e4 / (mpp * scale_y)),
                resolutionunit="CENTIMETER",
                description=None if number else description,
                software=None if number else f"restain {__version__}",
                subifds=None if number else len(levels) - 1,
                subfiletype=1 if number else 0,
                metadata=None,
                maxworkers=1,
                **form,
            )


def _description(store: TileStore, path: Path, mpp: float, metadata: Mapping[str, str]) -> bytes:
    """The OME-XML (2016-06), in ASCII as TIFF wants it."""
    ET.register_namespace("", OME)
    root = ET.Element(f"{{{OME}}}OME", {"Creator": f"restain {__version__}"})

    def below(parent: ET.Element, name: str, text: str | None = None, **attributes: str) -> ET.Element:
        element = ET.SubElement(parent, f"{{{OME}}}{name}", attributes)
        element.text = text
        return element

    samples = "3" if store.kind == "rgb" else "1"
    image = below(root, "Image", ID="Image:0", Name=path.name)
    below(image, "Description", metadata["notice"])
    pixels = below(
        image,
        "Pixels",
        ID="Pixels:0",
        DimensionOrder="XYCZT",
        Type="uint8" if store.kind == "rgb" else "uint16",
        BigEndian="false",
        SizeX=str(store.size.width),
        SizeY=str(store.size.height),
        SizeC=samples,
        SizeZ="1",
        SizeT="1",
        PhysicalSizeX=repr(float(mpp)),
        PhysicalSizeXUnit="\u00b5m",
        PhysicalSizeY=repr(float(mpp)),
        PhysicalSizeYUnit="\u00b5m",
        Interleaved="true" if store.kind == "rgb" else "false",
    )
    name = {} if store.kind == "rgb" else {"Name": "DAB optical density, 1e-4 per count"}
    below(pixels, "Channel", ID="Channel:0:0", SamplesPerPixel=samples, **name)
    below(pixels, "TiffData", IFD="0", PlaneCount="1")
    below(image, "AnnotationRef", ID="Annotation:0")
    annotations = below(root, "StructuredAnnotations")
    entries = below(below(annotations, "MapAnnotation", ID="Annotation:0", Namespace=NAMESPACE), "Value")
    for key, value in metadata.items():
        below(entries, "M", _printable(value), K=_printable(key))
    return ET.tostring(root, encoding="us-ascii", xml_declaration=True)


def _printable(text: str) -> str:
    """Without the control characters that XML 1.0 cannot hold."""
    return "".join(c for c in text if c in "\t\n\r" or (ord(c) >= 32 and not 0xD800 <= ord(c) <= 0xDFFF))

"""The finished slide as DICOM: a series of VL Whole Slide Microscopy images, streamed from a store of tiles.

One instance per level (PS3.3 A.32.8), ``TILED_FULL``, since fewer programs read ``TILED_SPARSE``. Frames are the store's
JPEG tiles, unchanged at level 0. They have no chroma subsampling, but ``YBR_FULL_422`` is the only YCbCr term for JPEG
that the WSI module enumerates (C.8.12.4); the JPEG stream states the subsampling (PS3.5 8.2.1).

Unknown attributes are empty if DICOM allows it. Others are neutral: acquisition is the time of the computation,
``FocusMethod`` is ``AUTO``, illumination is bright field as in the H&E slide.

wsidicom's writer (0.36) is not used, from reading its source. It takes finished tiles only by private classes, writes the present time into each file,
so that a resumed job gives other files, and copies the file again beyond 4 GiB of frames.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import ImageCms
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid
from pydicom.valuerep import DSfloat

from restain import NOTICE, __version__
from restain.errors import RestainError
from restain.files import digest, whole_folder
from restain.geometry import Size
from restain.progress import Progress, Steps
from restain.slides.pyramid import kept_metadata, pyramid, tile_steps
from restain.slides.store import TileStore

PRIVATE = (0x0099, "restain")
"""Group and creator of the private block whose element 01 holds the metadata as JSON."""

DEPTH_MM = 0.001
"""Thickness that is given for the plane of a slide, which DICOM wants to be above 0; nothing is known of it."""

BASIC_TABLE = 2**32
"""From this offset in bytes on a frame cannot be in the basic table of frames."""

_LO, _ST = 64, 1024
"""Most characters of a Long String and of a Short Text."""


def write_dicom(
    store: TileStore, folder: Path, *, mpp: float, metadata: Mapping[str, str], progress: Progress | None = None
) -> None:
    """Write a complete store of JPEG tiles as a DICOM series: ``level-0.dcm`` and so on in ``folder``, which it replaces.

    A killed call resumes at the next one. The same store and metadata give the same files, identifiers included.
    ``mpp`` is of level 0. ``metadata`` is stored in a private block, with ``notice`` and ``holes`` as in
    :func:`restain.slides.write_ome_tiff`; ``created`` in it (ISO 8601) dates the series.

    Raises RestainError if the store holds densities, tiles are missing, the store is damaged, ``folder`` holds other
    files, or the system refuses to write; ValueError if ``mpp`` is not positive, or the store is lossless.
    """
    if not mpp > 0:
        raise ValueError(f"mpp must be positive, not {mpp}")
    if store.kind == "rgb" and store.quality is None:
        raise ValueError("the frames of a DICOM series are JPEG; the store's tiles are not")
    if store.kind != "rgb":
        raise RestainError(f"{folder} is not written: DAB densities are written as OME-TIFF only, not as DICOM.")
    if store.missing:
        raise RestainError(f"{folder} is not written: {store.missing} of its tiles are not in {store.folder} yet.")
    if folder.exists() and not (folder.is_dir() and all(file.suffix == ".dcm" for file in folder.iterdir())):
        raise RestainError(f"{folder} holds other files than a DICOM series; it is left as it is.")
    steps = tile_steps(store, progress)
    kept = kept_metadata(store, metadata)
    with ExitStack() as stack:
        levels = pyramid(store, stack, steps)
        with whole_folder(folder) as partial:
            common = _common(store, mpp, kept)
            for number, level in enumerate(levels):
                _write_level(partial / f"level-{number}.dcm", common, number, level, store.size, mpp, steps)


def read_dicom_metadata(folder: Path) -> dict[str, str]:
    """The metadata that :func:`write_dicom` put into a series; empty for a series of another program.

    Raises RestainError if a file cannot be read as DICOM.
    """
    for path in sorted(folder.glob("*.dcm")):
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            group, creator = PRIVATE
            return dict(json.loads(dataset.private_block(group, creator)[0x01].value))
        except KeyError:
            continue
        except (OSError, ValueError, InvalidDicomError):
            raise RestainError(f"{path} cannot be read or is damaged.") from None
    return {}


def _write_level(
    path: Path, common: Dataset, number: int, level: TileStore, full: Size, mpp: float, steps: Steps
) -> None:
    # Two passes over the tiles, since the table of frames stands before them and its kind depends on their bytes.
    cells = list(level.cells())
    lengths = np.fromiter((len(level.encoded(*cell)) for cell in cells), np.uint64, len(cells))
    dataset = _level_dataset(common, number, level, full, mpp, int(lengths.sum()))
    with open(path, "wb") as file:
        pydicom.dcmwrite(file, dataset, enforce_file_format=True)
        _begin_frames(file, lengths)
        for cell in cells:
            frame = level.encoded(*cell)
            file.write(struct.pack("<HHI", 0xFFFE, 0xE000, len(frame) + len(frame) % 2))
            file.write(frame + b"\0" * (len(frame) % 2))
            steps.add()
        file.write(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))


def _begin_frames(file: BinaryIO, lengths: NDArray[np.uint64]) -> None:
    """The head of encapsulated pixel data (PS3.5 A.4), with the table of where each frame begins.

    The basic table has 32 bits an entry; beyond 4 GiB it is empty and the extended one stands before the pixel data.
    """
    even = lengths + lengths % 2
    starts = np.cumsum(even + 8) - (even + 8)
    basic = int(starts[-1]) < BASIC_TABLE
    if not basic:
        for element, table in ((0x0001, starts), (0x0002, even)):
            data = table.astype("<u8").tobytes()
            file.write(struct.pack("<HH2sHI", 0x7FE0, element, b"OV", 0, len(data)) + data)
    offsets = starts.astype("<u4").tobytes() if basic else b""
    file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
    file.write(struct.pack("<HHI", 0xFFFE, 0xE000, len(offsets)) + offsets)


def _common(store: TileStore, mpp: float, kept: Mapping[str, str]) -> Dataset:
    """The attributes that all instances of a series share."""
    try:
        created = datetime.fromisoformat(kept["created"]).astimezone(UTC)
    except (KeyError, ValueError):
        created = datetime.now(UTC)
    content = json.dumps([dict(kept), store.identity, store.stamp, str(store.size), mpp, created.isoformat()])
    source = kept.get("source_sha256") or digest(store.identity)
    day, clock = created.strftime("%Y%m%d"), created.strftime("%H%M%S")

    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    ds.TimezoneOffsetFromUTC = "+0000"
    for empty in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName", "StudyID"):
        setattr(ds, empty, "")
    ds.AccessionNumber = ""
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "no patient's data were written"
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.InstanceCreationDate = day
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.InstanceCreationTime = clock
    # One study per source: an archive then shows the results of several models for one slide side by side.
    ds.StudyInstanceUID = _uid("study", source)
    ds.StudyDescription = ds.SeriesDescription = ds.ImageComments = NOTICE
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesNumber = "SM", _uid("series", content), 1
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _uid("frame of reference", content), "SLIDE_CORNER"
    ds.PyramidUID, ds.PyramidDescription = _uid("pyramid", content), NOTICE
    ds.Manufacturer, ds.ManufacturerModelName = "restain", kept.get("bundle", "restain")[:_LO]
    ds.DeviceSerialNumber, ds.SoftwareVersions = kept.get("bundle_hash", __version__)[:_LO], f"restain {__version__}"
    ds.AcquisitionDateTime, ds.AcquisitionContextSequence = day + clock, []
    ds.DerivationDescription = _clip("; ".join([NOTICE, *(f"{k} {v}" for k, v in kept.items() if k != "notice")]), _ST)
    ds.ContributingEquipmentSequence = [_equipment(kept)]
    ds.BurnedInAnnotation, ds.LossyImageCompression, ds.LossyImageCompressionMethod = "NO", "01", "ISO_10918_1"

    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "YBR_FULL_422", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.Rows = ds.Columns = store.tile
    ds.PresentationLUTShape = "IDENTITY"
    ds.VolumetricProperties, ds.SpecimenLabelInImage = "VOLUME", "NO"
    ds.FocusMethod, ds.ExtendedDepthOfField = "AUTO", "NO"
    ds.ImagedVolumeWidth, ds.ImagedVolumeHeight = store.size.width * mpp / 1e3, store.size.height * mpp / 1e3
    ds.ImagedVolumeDepth = DEPTH_MM
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    ds.TotalPixelMatrixOriginSequence = [_item(XOffsetInSlideCoordinateSystem=0, YOffsetInSlideCoordinateSystem=0)]
    ds.DimensionOrganizationType = "TILED_FULL"
    ds.NumberOfOpticalPaths = ds.TotalPixelMatrixFocalPlanes = 1
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=_uid("dimensions", content))]

    container = f"{NOTICE} {source[:12]}"
    ds.ContainerIdentifier = container[:_LO]
    ds.IssuerOfTheContainerIdentifierSequence, ds.ContainerTypeCodeSequence = [], []
    specimen = _item(
        SpecimenIdentifier=ds.ContainerIdentifier,
        SpecimenUID=_uid("specimen", source),
        IssuerOfTheSpecimenIdentifierSequence=[],
        SpecimenPreparationSequence=[],
        SpecimenShortDescription=NOTICE,
    )
    ds.SpecimenDescriptionSequence = [specimen]
    ds.OpticalPathSequence = [_optical_path()]

    group, creator = PRIVATE
    ds.private_block(group, creator, create=True).add_new(0x01, "UT", json.dumps(dict(kept), ensure_ascii=False))
    # Not kept in the file: the seed of the instances' identifiers.
    ds.SOPInstanceUID = _uid("instances", content)
    return ds


def _level_dataset(common: Dataset, number: int, level: TileStore, full: Size, mpp: float, encoded: int) -> Dataset:
    ds = Dataset()
    ds.update(common)
    ds.SOPInstanceUID = _uid(str(number), str(common.SOPInstanceUID))
    ds.InstanceNumber = number + 1
    ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if number else "NONE"]
    ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixRows = level.size.width, level.size.height
    ds.NumberOfFrames = level.grid[0] * level.grid[1]
    pixels = 3 * level.tile**2 * level.grid[0] * level.grid[1]
    ds.LossyImageCompressionRatio = DSfloat(pixels / encoded, auto_format=True)
    # Rows first; the true ratio, not a power of two: an odd side was rounded up.
    ratios = full.height / level.size.height, full.width / level.size.width
    spacing = [DSfloat(mpp / 1e3 * ratio, auto_format=True) for ratio in ratios]
    shared = _item(
        PixelMeasuresSequence=[_item(PixelSpacing=spacing, SliceThickness=DSfloat(DEPTH_MM))],
        WholeSlideMicroscopyImageFrameTypeSequence=[_item(FrameType=ds.ImageType)],
        OpticalPathIdentificationSequence=[_item(OpticalPathIdentifier="1")],
    )
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.file_meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    return ds


def _equipment(kept: Mapping[str, str]) -> Dataset:
    return _item(
        PurposeOfReferenceCodeSequence=[_code("109102", "DCM", "Processing Equipment")],
        Manufacturer="restain",
        ManufacturerModelName=kept.get("bundle", "restain")[:_LO],
        SoftwareVersions=f"restain {__version__}",
        ContributionDescription=f"{NOTICE}: HER2 IHC computed from an image of H&E",
    )


def _optical_path() -> Dataset:
    return _item(
        OpticalPathIdentifier="1",
        OpticalPathDescription=NOTICE,
        IlluminationTypeCodeSequence=[_code("111744", "DCM", "Brightfield illumination")],
        IlluminationColorCodeSequence=[_code("414298005", "SCT", "Full Spectrum")],
        ICCProfile=_srgb(),
        ColorSpace="SRGB",
    )


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _uid(what: str, content: str) -> str:
    return str(generate_uid(entropy_srcs=[what, content]))


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


@cache
def _srgb() -> bytes:
    """The sRGB profile; its date, bytes 24 to 36 of the head, is set so that the same slide is the same file."""
    profile: Any = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    data = bytearray(profile.tobytes())
    data[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    return bytes(data) + b"\0" * (len(data) % 2)

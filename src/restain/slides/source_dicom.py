"""A DICOM WSI series in a folder, as one pyramid, through wsidicom."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import wsidicom
from pydicom.uid import VLWholeSlideMicroscopyImageStorage
from wsidicom.errors import WsiDicomNoResolutionError
from wsidicom.file import WsiDicomFileSource
from wsidicom.metadata import ImageType

from restain.errors import RestainError
from restain.geometry import Region, Size
from restain.images import Rgb
from restain.slides.codestream import colours_of
from restain.slides.find import dicom_files
from restain.slides.source import LEAST_SHARE, SlideImage, Source, choose_image, damaged, levels_of

for _name in ("wsidicom", "pydicom"):
    logging.getLogger(_name).addHandler(logging.NullHandler())

_SAME_PLANE_UM = 1e-3


@dataclass
class _Series:
    """The files of one slide, and what wsidicom makes of them."""

    files: list[Path]
    slide: Any
    faults: list[str]
    refusals: list[str]

    @property
    def name(self) -> str:
        return f"series of {self.files[0].name}"


@dataclass(frozen=True)
class _Plane:
    """One image of a series: a focal plane of an optical path of a pyramid."""

    series: _Series
    pyramid: int
    optical_path: str
    levels: tuple[tuple[Any, float], ...]
    """wsidicom's levels that have the image, and the focal plane there in µm."""

    @property
    def size(self) -> Size:
        size = self.levels[0][0].size
        return Size(size.width, size.height)


class DicomSource(Source):
    """The instances of one slide in a folder of DICOM, or beside a file of it; wsidicom locks its files itself."""

    def __init__(self, path: Path, image: int | None = None) -> None:
        files = _files(path)
        readers = _readers(path, files)
        faults = _unread(path, files, {_file(reader) for reader in readers})
        series: list[_Series] = []
        try:
            series += (_open_series(path, of) for of in _by_series(path, readers))
            planes, small = _planes(series)
            images = tuple(_described(plane, planes) for plane in planes)
            number, refusals = choose_image(path, images, image)
        except BaseException:
            for one in series:
                one.slide.close()
            raise
        self._plane = planes[number]
        mine = self._plane.series
        for one in series:
            if one is not mine:
                one.slide.close()
        levels = [level for level, _ in self._plane.levels]
        mpp, mpp_y = images[number].mpp or (None, None)
        super().__init__(
            path,
            "DICOM",
            levels_of([Size(level.size.width, level.size.height) for level in levels]),
            mpp=mpp,
            mpp_y=mpp_y,
            images=images if len(images) > 1 else (),
            faults=faults + mine.faults,
            refusals=refusals + mine.refusals,
        )
        if levels[0].level != 0:
            self.faults.append(f"{path}: the series lacks its finest level.")
        dataset = levels[0].datasets[0].as_dataset()
        self.vendor = str(dataset.get("Manufacturer") or "") or None
        paths = list(dataset.get("OpticalPathSequence") or ())
        optical: Any = next(
            (one for one in paths if one.get("OpticalPathIdentifier") == self._plane.optical_path),
            paths[0] if paths else {},
        )
        self.icc = optical.get("ICCProfile")
        power = optical.get("ObjectiveLensPower")
        self.objective = float(power) if power else None
        for name, others in (("label", mine.slide.labels), ("macro", mine.slide.overviews)):
            for other in others.groups if others is not None else ():
                self.associated[name] = Size(other.size.width, other.size.height)
        self.associated |= {f"pyramid {plane.pyramid}": plane.size for plane in small if plane.series is mine}

    def read(self, level: int, region: Region) -> Rgb:
        at, size = (region.origin.x, region.origin.y), (region.size.width, region.size.height)
        of, z = self._plane.levels[level]
        try:
            image = self._plane.series.slide.read_region(
                at, of.level, size, z=z, path=self._plane.optical_path, pyramid=self._plane.pyramid
            )
        except Exception:
            raise damaged(self.path, "a frame cannot be decoded") from None
        return np.ascontiguousarray(image.convert("RGB"), np.uint8)

    def close(self) -> None:
        self._plane.series.slide.close()


def _files(path: Path) -> list[Path]:
    """The DICOM files of a folder, or of the folder in which a file lies.

    Raises RestainError if there is none, or the folder cannot be listed.
    """
    try:
        if path.is_dir() and not any(path.iterdir()):
            raise RestainError(f"{path} is an empty folder.")
        files = dicom_files(path if path.is_dir() else path.parent)
    except OSError as fault:
        raise RestainError(f"{path} cannot be read ({fault.strerror}).") from None
    if not files:
        raise RestainError(f"{path} holds no slide that restain reads: it is no OME-Zarr and has no DICOM file.")
    return files


def _readers(path: Path, files: Sequence[Path]) -> list[Any]:
    """wsidicom's readers of the instances of slides among the files, closed, by name.

    Raises RestainError if there is none.
    """
    try:
        with WsiDicomFileSource.open(files) as probe:
            return sorted(probe.readers, key=_file)
    except Exception as fault:
        faults = _unread(path, files, set())
        raise RestainError(faults[0] if faults else _no_slide(path, fault)) from None


def _file(reader: Any) -> Path:
    return Path(reader.filepath.path)


def _by_series(path: Path, readers: Sequence[Any]) -> Iterator[list[Path]]:
    """The files of each slide, in the order of their names; where ``path`` is a file, those of its own slide.

    A slide is a series, or several series that are levels of one image: they have a frame of reference and an extent in
    common, and no size. Raises RestainError if there is no slide.
    """
    slides: list[list[Any]] = []
    for reader in readers:
        if reader.image_type != ImageType.VOLUME:
            continue
        mine = next((slide for slide in slides if all(_of_one_slide(reader, other) for other in slide)), None)
        if mine is None:
            slides.append([reader])
        else:
            mine.append(reader)
    wanted = [slide for slide in slides if path.is_dir() or path.name in {_file(reader).name for reader in slide}]
    if not wanted:
        raise RestainError(f"{path} is DICOM, but no level of a slide.")
    for slide in wanted:
        series = {reader.uids.slide.series_instance for reader in slide}
        frames = {reader.uids.slide.frame_of_reference for reader in slide} - {None}
        beside = [
            reader
            for reader in readers
            if reader.image_type != ImageType.VOLUME
            and (
                len(slides) == 1
                or reader.uids.slide.series_instance in series
                or reader.uids.slide.frame_of_reference in frames
            )
        ]
        yield [_file(reader) for reader in slide + beside]


def _of_one_slide(one: Any, other: Any) -> bool:
    """Whether two instances are of one series, or levels of one image in two series."""
    if one.uids.slide.series_instance == other.uids.slide.series_instance:
        return True
    frame, here, there = one.uids.slide.frame_of_reference, one.dataset.mm_size, other.dataset.mm_size
    if frame is None or frame != other.uids.slide.frame_of_reference or here is None or there is None:
        return False
    return one.dataset.image_size != other.dataset.image_size and (
        max(abs(here.width / there.width - 1), abs(here.height / there.height - 1)) < 0.01
    )


def _unread(path: Path, files: Sequence[Path], read: set[Path]) -> list[str]:
    """A sentence for each file of a folder that should be an instance of a slide and is none that wsidicom reads."""
    if not path.is_dir():
        files = [path]
    found = []
    for file in sorted({*files, *(file for file in path.glob("*.dcm") if file.is_file())} - read):
        try:
            kind = pydicom.filereader.read_file_meta_info(file).get("MediaStorageSOPClassUID")
        except Exception:
            kind = VLWholeSlideMicroscopyImageStorage
        # Annotations and other objects are no images of the slide.
        if kind == VLWholeSlideMicroscopyImageStorage:
            found.append(f"{file} is truncated or damaged, or of a kind of DICOM that restain does not read.")
    return found


def _open_series(path: Path, files: list[Path]) -> _Series:
    """Open a series with wsidicom; frames are decoded by the colours that their codestreams state.

    Raises RestainError if the files make no pyramid.
    """
    source = WsiDicomFileSource.open(files)
    faults, refusals = [], []
    try:
        for reader in source.readers:
            if reader.image_type != ImageType.VOLUME:
                continue
            file, dataset = _file(reader), reader.dataset
            if sum(reader.frame_index[-1]) > file.stat().st_size:
                faults.append(f"{file} is truncated or damaged: its last frames are missing.")
                continue
            if dataset.bits != 8:
                refusals.append(f"{file} has pixels of {dataset.bits} bits; restain reads 8-bit RGB.")
            label = dataset.photometric_interpretation
            true = colours_of(reader.read_frame(reader.frame_offset), str(reader.transfer_syntax), label)
            if true is None:
                refusals.append(
                    f"{file} says that its colours are {label}, which its frames ({reader.transfer_syntax.name}) do not carry out."
                )
            elif true != label:
                dataset.as_dataset().PhotometricInterpretation = true
        return _Series(files, wsidicom.WsiDicom(source), faults, refusals)
    except Exception as fault:
        source.close()
        raise RestainError(_no_slide(path, fault)) from None


def _no_slide(path: Path, fault: Exception) -> str:
    if isinstance(fault, WsiDicomNoResolutionError):
        return f"{path}: its DICOM files do not say the spacing of their pixels."
    return f"{path} holds no slide that restain reads (as DICOM: {str(fault).rstrip('.') or type(fault).__name__})."


def _planes(series: Sequence[_Series]) -> tuple[list[_Plane], list[_Plane]]:
    """The images of all series, and those of pyramids that are small beside another of their series."""
    large: list[_Plane] = []
    small: list[_Plane] = []
    for one in series:
        longest = max(max(pyramid.size.width, pyramid.size.height) for pyramid in one.slide.pyramids)
        for number, pyramid in enumerate(one.slide.pyramids):
            is_large = max(pyramid.size.width, pyramid.size.height) >= LEAST_SHARE * longest
            for path, focal in pyramid[0].focal_planes_by_optical_path.items():
                for z in focal:
                    levels = tuple(
                        (level, near)
                        for level in pyramid
                        for near in level.focal_planes_by_optical_path.get(path, ())
                        if abs(near - z) < _SAME_PLANE_UM
                    )
                    (large if is_large else small).append(_Plane(one, number, path, levels))
    return large, small


def _described(plane: _Plane, planes: Sequence[_Plane]) -> SlideImage:
    """A plane, called after that in which the planes differ."""

    def facts(one: _Plane) -> tuple[str, ...]:
        at = f"focal plane at {one.levels[0][1]:g} µm"
        return one.series.name, f"pyramid {one.pyramid}", f"optical path {one.optical_path}", at

    differing = [fact for fact, *others in zip(facts(plane), *map(facts, planes), strict=True) if len(set(others)) > 1]
    spacing = plane.levels[0][0].mpp
    return SlideImage(
        ", ".join(differing) or plane.series.name, plane.size, (float(spacing.width), float(spacing.height))
    )

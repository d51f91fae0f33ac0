"""DICOM folders as people have them: several slides, planes, stray and broken files, wrong labels of colour."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import generate_uid

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.slides import TileStore
from restain.slides.dicom import write_dicom
from restain.slides.find import is_slide_folder
from restain.slides.source_dicom import DicomSource

SIZE = Size(900, 600)
RED, GREEN = (200, 40, 90), (40, 160, 60)


def _series(folder: Path, colour: tuple[int, int, int] = RED, size: Size = SIZE) -> Path:
    """A DICOM series of one colour, of two levels."""
    with TileStore.open(folder.with_suffix(".part"), {}, size, 128, "rgb") as store:
        for row, column in np.ndindex(*store.grid):
            store.put(row, column, np.full((128, 128, 3), colour, np.uint8))
        write_dicom(store, folder, mpp=0.5, metadata={})
    return folder


def _change(file: Path, change: Callable[[pydicom.Dataset], None]) -> None:
    dataset = pydicom.dcmread(file)
    change(dataset)
    dataset.save_as(file)


def _colour(source: DicomSource) -> np.ndarray:
    return source.read(0, Region(Point(10, 10), Size(20, 20))).mean((0, 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _series(tmp_path / "s")


@pytest.mark.parametrize("name", ["README.txt", ".DS_Store", "aaa.jpg", "zzz.db", "Thumbs.db"])
def test_a_stray_file_does_not_decide(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\xff\xd8\xff" * 100)
    assert is_slide_folder(folder)
    source = DicomSource(folder)
    assert source.faults == source.refusals == []
    assert len(source.levels) == 2
    assert not source.images


def test_a_folder_without_dicom_is_no_slide(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"text" * 100)
    assert not is_slide_folder(tmp_path)
    with pytest.raises(RestainError, match="no DICOM file"):
        DicomSource(tmp_path)


def test_two_slides_in_a_folder_are_named_and_chosen_by_number(tmp_path: Path) -> None:
    folder = _series(tmp_path / "a")
    for file in _series(tmp_path / "b", GREEN, Size(800, 500)).iterdir():
        shutil.copy(file, folder / f"other-{file.name}")
    source = DicomSource(folder)
    assert [one.size for one in source.images] == [SIZE, Size(800, 500)]
    assert [one.mpp for one in source.images] == [(0.5, 0.5)] * 2
    assert len(source.refusals) == 1
    assert "level-0.dcm" in source.refusals[0]
    assert "#0" in source.refusals[0]
    for number, colour, size in ((0, RED, SIZE), (1, GREEN, Size(800, 500))):
        source = DicomSource(folder, number)
        assert source.refusals == []
        assert (source.levels[0].size, len(source.levels)) == (size, 2)
        assert np.abs(_colour(source) - colour).max() < 4
    with pytest.raises(RestainError, match="no image 2"):
        DicomSource(folder, 2)
    # A file stands for its own slide.
    assert np.abs(_colour(DicomSource(folder / "other-level-1.dcm")) - GREEN).max() < 4


def test_two_series_of_one_study_and_size_are_two_slides(tmp_path: Path) -> None:
    folder = _series(tmp_path / "a")
    uid = generate_uid()
    for file in _series(tmp_path / "b", GREEN).iterdir():
        _change(file, lambda one: one.update({"SeriesInstanceUID": uid}))
        for name in ("StudyInstanceUID", "FrameOfReferenceUID"):
            value = pydicom.dcmread(folder / "level-0.dcm")[name].value
            _change(file, lambda one, name=name, value=value: one.update({name: value}))
        shutil.copy(file, folder / f"other-{file.name}")
    assert len(DicomSource(folder).images) == 2


def test_levels_in_series_of_their_own_are_one_slide(folder: Path) -> None:
    _change(folder / "level-1.dcm", lambda one: one.update({"SeriesInstanceUID": generate_uid()}))
    source = DicomSource(folder)
    assert (len(source.levels), source.refusals) == (2, [])


def test_focal_planes_and_optical_paths_are_images(folder: Path) -> None:
    def lift(one: pydicom.Dataset) -> None:
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.TotalPixelMatrixOriginSequence[0].ZOffsetInSlideCoordinateSystem = 5.0

    shutil.copy(folder / "level-0.dcm", folder / "plane.dcm")
    _change(folder / "plane.dcm", lift)
    source = DicomSource(folder)
    assert [one.name for one in source.images] == ["focal plane at 0 µm", "focal plane at 5 µm"]
    assert "2 images" in source.refusals[0]
    assert [len(DicomSource(folder, n).levels) for n in (0, 1)] == [2, 1]
    assert np.abs(_colour(DicomSource(folder, 1)) - RED).max() < 4

    def other(one: pydicom.Dataset) -> None:
        one.TotalPixelMatrixOriginSequence[0].ZOffsetInSlideCoordinateSystem = 0.0
        one.OpticalPathSequence[0].OpticalPathIdentifier = "fluorescence"

    _change(folder / "plane.dcm", other)
    names = [one.name for one in DicomSource(folder).images]
    assert len(names) == 2
    assert any("fluorescence" in name for name in names)


def test_pixels_have_two_sides(folder: Path) -> None:
    for file in folder.iterdir():
        _change(
            file,
            lambda one: setattr(
                (measures := one.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]),
                "PixelSpacing",
                [measures.PixelSpacing[0] * 2, measures.PixelSpacing[1]],
            ),
        )
    source = DicomSource(folder)
    assert (source.mpp, source.mpp_y) == (pytest.approx(0.5), pytest.approx(1.0))


def test_a_broken_instance_among_good_ones_is_named(folder: Path) -> None:
    whole = (folder / "level-1.dcm").read_bytes()
    (folder / "level-1.dcm").write_bytes(whole[:700])
    source = DicomSource(folder)
    assert len(source.levels) == 1
    assert ["level-1.dcm" in fault for fault in source.faults] == [True]
    (folder / "level-1.dcm").write_bytes(b"")
    assert ["level-1.dcm" in fault for fault in DicomSource(folder).faults] == [True]
    (folder / "level-1.dcm").write_bytes(whole[:-400])
    assert "level-1.dcm is truncated" in DicomSource(folder).faults[0]


def _frames(label: str, syntax: str, encode: Callable[[np.ndarray], bytes]) -> Callable[[pydicom.Dataset], None]:
    rng = np.random.default_rng([15])
    tile = (rng.integers(-20, 20, (128, 128, 3)) + RED).astype(np.uint8)

    def change(one: pydicom.Dataset) -> None:
        one.file_meta.TransferSyntaxUID, one.PhotometricInterpretation = syntax, label
        one.PixelData = encapsulate([encode(tile)] * int(one.NumberOfFrames))

    return change


def _jpeg(stored: str, outcolor: str, subsampling: str = "444") -> Callable[[np.ndarray], bytes]:
    return lambda tile: imagecodecs.jpeg8_encode(
        tile, 95, colorspace=stored, outcolorspace=outcolor, subsampling=subsampling
    )


def _bare(encode: Callable[[np.ndarray], bytes]) -> Callable[[np.ndarray], bytes]:
    """Without the marker that names the colours: JFIF's 18 bytes, Adobe's 16."""

    def stripped(tile: np.ndarray) -> bytes:
        data = encode(tile)
        length = int.from_bytes(data[4:6], "big")
        assert data[2:4] in (b"\xff\xe0", b"\xff\xee")
        return data[:2] + data[4 + length :]

    return stripped


BASELINE = "1.2.840.10008.1.2.4.50"


@pytest.mark.parametrize(
    ("label", "encode"),
    [
        ("RGB", _jpeg("RGB", "YCBCR")),
        ("RGB", _jpeg("RGB", "YCBCR", "420")),
        ("RGB", _bare(_jpeg("RGB", "YCBCR", "422"))),
        ("RGB", _jpeg("RGB", "RGB")),
        ("YBR_FULL_422", _jpeg("RGB", "RGB")),
        ("YBR_FULL_422", _bare(_jpeg("RGB", "RGB"))),
        ("YBR_FULL_422", _jpeg("RGB", "YCBCR")),
        ("YBR_FULL_422", _bare(_jpeg("RGB", "YCBCR"))),
        ("YBR_ICT", _jpeg("RGB", "YCBCR")),
    ],
)
def test_colours_are_those_of_the_codestream_whatever_the_label(folder: Path, label: str, encode) -> None:
    for file in folder.iterdir():
        _change(file, _frames(label, BASELINE, encode))
    for path in (folder, folder / "level-0.dcm"):
        source = DicomSource(path)
        assert source.refusals == []
        assert np.abs(_colour(source) - RED).max() < 6


def test_colours_that_nothing_decodes_are_refused(folder: Path) -> None:
    def ybr_in_jpeg_2000(tile: np.ndarray) -> bytes:
        return imagecodecs.jpeg2k_encode(tile, level=0, codecformat="J2K", mct=False)

    for label, refused in (("RGB", False), ("YBR_FULL", True), ("YBR_ICT", True)):
        _change(folder / "level-0.dcm", _frames(label, "1.2.840.10008.1.2.4.90", ybr_in_jpeg_2000))
        source = DicomSource(folder)
        assert bool(source.refusals) is refused
        assert not refused or "level-0.dcm" in source.refusals[0]

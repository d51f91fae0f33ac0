"""A DICOM series that wsidicom, OpenSlide and restain read alike, that says what it is, and of nobody whose it is."""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
import wsidicom
from pydicom.encaps import encapsulate, generate_frames

from restain import NOTICE
from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.slides import TileStore, dicom, open_slide, read_metadata
from restain.slides.dicom import write_dicom
from restain.slides.pyramid import level_sizes

MPP = 0.4967
SIZE = Size(2051, 1310)
TEXT = {
    "bundle": "µ <b> & é",
    "bundle_hash": "c" * 64,
    "source_sha256": "a" * 64,
    "created": "2026-01-02T03:04:05+00:00",
}

REQUIRED = """
PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID StudyDate StudyTime ReferringPhysicianName StudyID
AccessionNumber Modality SeriesInstanceUID SeriesNumber FrameOfReferenceUID PositionReferenceIndicator Manufacturer
ManufacturerModelName DeviceSerialNumber SoftwareVersions InstanceNumber SamplesPerPixel PhotometricInterpretation Rows
Columns BitsAllocated BitsStored HighBit PixelRepresentation PlanarConfiguration AcquisitionContextSequence
SharedFunctionalGroupsSequence ContentDate ContentTime NumberOfFrames DimensionOrganizationSequence ContainerIdentifier
IssuerOfTheContainerIdentifierSequence ContainerTypeCodeSequence SpecimenDescriptionSequence ImageType ImagedVolumeWidth
ImagedVolumeHeight ImagedVolumeDepth TotalPixelMatrixColumns TotalPixelMatrixRows TotalPixelMatrixOriginSequence
TotalPixelMatrixFocalPlanes ImageOrientationSlide AcquisitionDateTime LossyImageCompression LossyImageCompressionRatio
LossyImageCompressionMethod PresentationLUTShape VolumetricProperties SpecimenLabelInImage BurnedInAnnotation
FocusMethod ExtendedDepthOfField OpticalPathSequence NumberOfOpticalPaths DimensionOrganizationType SOPClassUID
SOPInstanceUID
""".split()  # noqa: SIM905
"""Type 1 and 2 of the mandatory modules of the IOD, and the conditional ones that apply (PS3.3 A.32.8.3)."""


def _store(folder: Path) -> TileStore:
    return TileStore.open(folder / "s.part", {"s": "1"}, SIZE, 256, "rgb")


def _fill(store: TileStore) -> TileStore:
    rng = np.random.default_rng([4])
    for row in range(store.grid[0]):
        for column in range(store.grid[1]):
            if row > 1 and column < 2:
                store.put_blank(row, column, (243, 242, 244))
            elif (row, column) == (0, 3):
                store.put_hole(row, column, "does not decode")
            else:
                blocks = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                store.put(row, column, blocks.repeat(16, axis=0).repeat(16, axis=1))
    return store


def _pixels(store: TileStore) -> np.ndarray:
    rows = [np.concatenate([store.read(r, c) for c in range(store.grid[1])], axis=1) for r in range(store.grid[0])]
    return np.concatenate(rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray], list[bytes]]:
    """The series, the pixels of its levels as the store holds them, and the encoded tiles of level 0."""
    folder = tmp_path_factory.mktemp("dicom")
    with _fill(_store(folder)) as store:
        write_dicom(store, folder / "s.dicom", mpp=MPP, metadata=TEXT)
        levels, finer = [_pixels(store)], store
        encoded = [store.encoded(r, c) for r, c in np.ndindex(*store.grid)]
        with ExitStack() as stack:
            for number, size in enumerate(level_sizes(SIZE)[1:], start=1):
                finer = stack.enter_context(finer.level(number, size))
                levels.append(_pixels(finer))
    return folder / "s.dicom", levels, encoded


def test_every_reader_gives_the_pixels_of_the_store_at_every_level(made) -> None:
    folder, levels, _ = made
    assert len(levels) == 4
    sizes = [(level.shape[1], level.shape[0]) for level in levels]
    with wsidicom.WsiDicom.open(folder) as slide:
        assert [(one.size.width, one.size.height) for one in slide.pyramid] == sizes
        for one, want in zip(slide.pyramid, levels, strict=True):
            got = slide.read_region((0, 0), one.level, (want.shape[1], want.shape[0]))
            assert np.array_equal(np.asarray(got.convert("RGB")), want)
    # Any file of the series stands for it.
    with openslide.OpenSlide(folder / "level-2.dcm") as slide:
        assert list(slide.level_dimensions) == sizes
        for number, want in enumerate(levels):
            assert np.array_equal(np.asarray(slide.read_region((0, 0), number, sizes[number]).convert("RGB")), want)
    for path in (folder, folder / "level-0.dcm"):
        with open_slide(path) as slide:
            assert slide.faults == []
            assert [(one.size.width, one.size.height) for one in slide.levels] == sizes
            for number, (one, want) in enumerate(zip(slide.levels, levels, strict=True)):
                view = slide.read(Region(Point(0, 0), one.size), MPP) if number == 0 else None
                assert view is None or np.array_equal(view, want)


def test_the_frames_of_level_0_are_the_tiles_of_the_store(made) -> None:
    folder, _, encoded = made
    dataset = pydicom.dcmread(folder / "level-0.dcm")
    frames = list(generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames))
    # Frames have an even length.
    assert [frame[: len(tile)] for frame, tile in zip(frames, encoded, strict=True)] == encoded


def test_every_reader_finds_the_scale(made) -> None:
    folder, levels, _ = made
    with openslide.OpenSlide(folder / "level-0.dcm") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(MPP)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(MPP)
    with open_slide(folder) as slide:
        assert slide.mpp == pytest.approx(MPP)
    for number, level in enumerate(levels):
        dataset = pydicom.dcmread(folder / f"level-{number}.dcm", stop_before_pixels=True)
        rows, columns = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        # Each level spans the whole slide.
        assert rows * level.shape[0] == pytest.approx(SIZE.height * MPP / 1e3)
        assert columns * level.shape[1] == pytest.approx(SIZE.width * MPP / 1e3)


def test_required_attributes_are_there_and_say_virtual_but_not_whose(made) -> None:
    folder, levels, _ = made
    headers = [pydicom.dcmread(folder / f"level-{n}.dcm", stop_before_pixels=True) for n in range(len(levels))]
    for number, header in enumerate(headers):
        assert [name for name in REQUIRED if name not in header] == []
        assert list(header.ImageType) == ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if number else "NONE"]
        assert header.InstanceNumber == number + 1
        assert header.AcquisitionDateTime == "20260102030405"
        for shown in ("SeriesDescription", "StudyDescription", "ContainerIdentifier", "DerivationDescription"):
            assert NOTICE in header[shown].value
        for whose in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"):
            assert not header[whose].value
    for alike in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PyramidUID"):
        assert len({header[alike].value for header in headers}) == 1
    assert len({header.SOPInstanceUID for header in headers}) == len(headers)


def test_provenance_and_holes_come_back(made) -> None:
    text = read_metadata(made[0])
    assert json.loads(text.pop("holes")) == [[768, 0, 256, 256, "does not decode"]]
    assert text == {"notice": NOTICE, **TEXT}


def test_more_than_4_gib_of_frames_have_the_extended_table(made, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dicom, "BASIC_TABLE", 0)
    with _fill(_store(tmp_path)) as store:
        write_dicom(store, tmp_path / "s.dicom", mpp=MPP, metadata=TEXT)
    header = pydicom.dcmread(tmp_path / "s.dicom" / "level-0.dcm")
    assert len(header.ExtendedOffsetTable) == 8 * header.NumberOfFrames
    box = Region(Point(1000, 700), Size(400, 300))
    want = made[1][0][box.slices]
    for path in (tmp_path / "s.dicom", tmp_path / "s.dicom" / "level-0.dcm"):
        with open_slide(path) as slide:
            assert np.array_equal(slide.read(box, slide.mpp), want)


def test_other_files_densities_and_missing_tiles_are_refused(tmp_path) -> None:
    with TileStore.open(tmp_path / "d.part", {}, Size(40, 40), 64, "dab") as store:
        store.put_blank(0, 0)
        with pytest.raises(RestainError, match="OME-TIFF only"):
            write_dicom(store, tmp_path / "d.dicom", mpp=MPP, metadata={})
    with TileStore.open(tmp_path / "s.part", {}, Size(40, 40), 64, "rgb") as store:
        with pytest.raises(RestainError, match="1 of its tiles"):
            write_dicom(store, tmp_path / "s.dicom", mpp=MPP, metadata={})
        store.put_blank(0, 0)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").touch()
        with pytest.raises(RestainError, match="other files"):
            write_dicom(store, tmp_path / "mine", mpp=MPP, metadata={})
        for _ in range(2):  # an older series is replaced
            write_dicom(store, tmp_path / "s.dicom", mpp=MPP, metadata={})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["d.part", "mine", "s.dicom", "s.part"]


def test_killed_and_called_again_gives_the_same_files(made, tmp_path) -> None:
    with _fill(_store(tmp_path)):
        pass
    fork = multiprocessing.get_context("fork")
    reached = fork.Event()

    def step(done: int, total: int) -> None:
        if done >= 50:
            reached.set()
            time.sleep(60)

    job = fork.Process(
        target=lambda: write_dicom(_store(tmp_path), tmp_path / "s.dicom", mpp=MPP, metadata=TEXT, progress=step)
    )
    job.start()
    assert reached.wait(30)
    job.kill()
    job.join()
    assert not (tmp_path / "s.dicom").exists()
    seen: list[tuple[int, int]] = []
    with _store(tmp_path) as store:
        write_dicom(store, tmp_path / "s.dicom", mpp=MPP, metadata=TEXT, progress=lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1] == len(seen)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["s.dicom", "s.part"]
    for number in range(4):
        name = f"level-{number}.dcm"
        assert (tmp_path / "s.dicom" / name).read_bytes() == (made[0] / name).read_bytes()


def test_a_full_disk_is_one_sentence_and_leaves_no_series(tmp_path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with _fill(_store(tmp_path)) as store:
        write_dicom(store, tmp_path / "s.dicom", mpp=MPP, metadata=TEXT)
        (tmp_path / "s.dicom").rename(tmp_path / "whole")
        limit = (tmp_path / "whole" / "level-0.dcm").stat().st_size - 5000
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(RestainError, match=r"s\.dicom cannot be written"):
                write_dicom(store, tmp_path / "s.dicom", mpp=MPP, metadata=TEXT)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["s.part", "whole"]


CODECS = {
    "JPEG_Baseline_(Process_1)-YBR-8.jpg": ("1.2.840.10008.1.2.4.50", "YBR_FULL_422", 2),
    "JPEG_Baseline_(Process_1)-RGB-8.jpg": ("1.2.840.10008.1.2.4.50", "RGB", 2),
    "JPEG_2000_Image_Compression-YBR-8.jp2": ("1.2.840.10008.1.2.4.91", "YBR_ICT", 2),
    "JPEG_2000_Image_Compression_(Lossless_Only)-YBR-8.jp2": ("1.2.840.10008.1.2.4.90", "YBR_RCT", 0),
    "JPEG-LS_Lossless_Image_Compression-RGB-8.jls": ("1.2.840.10008.1.2.4.80", "RGB", 0),
    "JPEG_Lossless,_Non-Hierarchical_(Process_14)-RGB-8.jpg": ("1.2.840.10008.1.2.4.57", "RGB", 0),
    "RLE_Lossless-RGB-8.rle": ("1.2.840.10008.1.2.5", "RGB", 0),
}
"""Encoded tiles of ``wsidicom-data``: transfer syntax, photometric interpretation, mean difference allowed (0 for lossless ones)."""


@pytest.mark.parametrize("name", CODECS)
def test_frames_of_every_codec_of_wsidicom_data_are_read(made, tmp_path, name) -> None:
    data = pytest.importorskip("wsidicom_data").TestData
    syntax, photometric, most = CODECS[name]
    want = np.asarray(data.rgb().convert("RGB")).astype(int)
    dataset = pydicom.dcmread(made[0] / "level-3.dcm")
    dataset.file_meta.TransferSyntaxUID, dataset.PhotometricInterpretation = syntax, photometric
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = *want.shape[:2], 1
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = want.shape[:2]
    dataset.PixelData = encapsulate([(data.test_data_path / "encoded" / name).read_bytes()])
    (tmp_path / "series").mkdir()
    dataset.save_as(tmp_path / "series" / "0.dcm")
    with open_slide(tmp_path / "series") as slide:
        got = slide.read(Region(Point(0, 0), slide.size), slide.mpp)
    assert np.abs(got - want).mean() <= most

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from restain.cli import app
from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.images import write_png, write_rgb
from restain.slides import open_slide

SVS = Path(__file__).parents[3] / "shared/data/slides/CMU-1-Small-Region.svs"
needs_svs = pytest.mark.skipif(not SVS.exists(), reason="shared/data/slides is not here")


def picture(height: int, width: int, seed: int = 3) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def halved(rgb: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
    boxes = rgb[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).astype(float)
    return np.rint(boxes.mean(axis=(1, 3))).astype(np.uint8)


def write_ome(path: Path, rgb: np.ndarray, mpp: float = 0.25, levels: int = 3) -> None:
    facts = {"axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": mpp}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        form = {"photometric": "rgb", "tile": (64, 64), "compression": "adobe_deflate"}
        tiff.write(rgb, subifds=levels - 1, metadata=facts, **form)
        for _ in range(levels - 1):
            rgb = halved(rgb)
            tiff.write(rgb, subfiletype=1, **form)


def write_zarr(path: Path, rgb: np.ndarray, mpp: float = 0.5) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(path), mode="w")
    sets = []
    for i, level in enumerate((rgb, halved(rgb))):
        group.create_array(str(i), data=np.ascontiguousarray(level.transpose(2, 0, 1)), chunks=(3, 64, 64))
        scale = {"type": "scale", "scale": [1, mpp * 2**i, mpp * 2**i]}
        sets.append({"path": str(i), "coordinateTransformations": [scale]})
    axes = [{"name": "c"}, {"name": "y", "unit": "micrometer"}, {"name": "x", "unit": "micrometer"}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": sets}]}


def everything(slide) -> np.ndarray:
    return slide.read(Region(Point(0, 0), slide.size), slide.mpp)


@needs_svs
def test_svs_facts_and_pixels():
    with open_slide(SVS) as slide:
        assert (slide.vendor, slide.objective, slide.mpp) == ("aperio", 20.0, 0.499)
        assert slide.size == Size(2220, 2967)
        assert set(slide.associated) == {"label", "macro", "thumbnail"}
        assert slide.faults == []
        got = slide.read(Region(Point(300, 200), Size(90, 70)), slide.mpp)
    want = tifffile.imread(SVS, key=0)[200:270, 300:390]
    assert np.abs(got.astype(int) - want).max() <= 2  # two JPEG decoders


@needs_svs
def test_cut_svs_says_that_it_is_cut(tmp_path):
    whole = SVS.read_bytes()
    for share in (0.1, 0.5, 0.98):
        cut = tmp_path / f"cut{share}.svs"
        cut.write_bytes(whole[: int(len(whole) * share)])
        try:
            with open_slide(cut) as slide:
                sentence = " ".join(slide.faults)
        except RestainError as fault:
            sentence = str(fault)
        assert "truncated" in sentence
        assert cut.name in sentence
        assert "--mpp" not in sentence


@pytest.mark.parametrize("kind", ["ome", "flat", "strips", "jpeg", "zarr", "png"])
def test_level_0_comes_back_as_written(tmp_path, kind):
    rgb = picture(150, 210)
    path = tmp_path / {"ome": "a.ome.tif", "zarr": "a.zarr", "png": "a.png"}.get(kind, "a.tif")
    mpp = 0.5
    if kind == "ome":
        write_ome(path, rgb, mpp)
    elif kind == "zarr":
        write_zarr(path, rgb, mpp)
    elif kind in ("flat", "png"):
        write_rgb(path, rgb, mpp=mpp)
    elif kind == "strips":
        tifffile.imwrite(path, rgb, photometric="rgb", rowsperstrip=16, resolution=(2e4, 2e4), resolutionunit=3)
    else:
        tifffile.imwrite(
            path, rgb, photometric="rgb", tile=(64, 64), compression="jpeg", resolution=(2e4, 2e4), resolutionunit=3
        )
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(mpp, rel=1e-3)
        off = np.abs(everything(slide).astype(int) - rgb)
        assert off.mean() < 6 if kind == "jpeg" else off.max() == 0


def test_pyramid_in_subifds_and_zarr_has_all_levels(tmp_path):
    rgb = picture(150, 210)
    write_ome(tmp_path / "a.ome.tif", rgb)
    write_zarr(tmp_path / "a.zarr", rgb)
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 4]
    with open_slide(tmp_path / "a.zarr") as slide:
        assert [level.downsample for level in slide.levels] == [1, 2]


def test_whole_factors_are_box_means_and_beyond_the_border_is_white(tmp_path):
    rgb = picture(120, 160)
    write_png(tmp_path / "a.png", rgb)
    with open_slide(tmp_path / "a.png", mpp=0.25) as slide:
        got = slide.read(Region(Point(-3, -2), Size(90, 70)), 0.5)
    assert np.abs(got[2:62, 3:83].astype(int) - halved(rgb)).max() <= 1
    got[2:62, 3:83] = 255
    assert (got == 255).all()


@cache
def shared_slides() -> list:
    folder = Path(mkdtemp())
    rgb = picture(333, 417)
    write_ome(folder / "a.ome.tif", rgb)
    write_png(folder / "a.png", rgb)
    slides = [open_slide(folder / "a.ome.tif"), open_slide(folder / "a.png", mpp=0.25)]
    return slides + ([open_slide(SVS)] if SVS.exists() else [])


@settings(max_examples=60, deadline=None)
@given(
    which=st.integers(0, 2),
    mpp=st.one_of(st.floats(0.1, 5), st.sampled_from([0.25, 0.5, 1.0, 0.499, 0.998])),
    x=st.integers(-20, 300),
    y=st.integers(-20, 300),
    width=st.integers(2, 90),
    height=st.integers(2, 90),
    share=st.floats(0, 1),
)
def test_two_halves_are_the_whole(which, mpp, x, y, width, height, share):
    slides = shared_slides()
    slide = slides[which % len(slides)]
    whole = slide.read(Region(Point(x, y), Size(width, height)), mpp)
    at = 1 + int(share * (width - 2))
    left = slide.read(Region(Point(x, y), Size(at, height)), mpp)
    right = slide.read(Region(Point(x + at, y), Size(width - at, height)), mpp)
    assert np.array_equal(np.hstack([left, right]), whole)
    at = 1 + int(share * (height - 2))
    lower = slide.read(Region(Point(x, y + at), Size(width, height - at)), mpp)
    assert np.array_equal(lower, whole[at:])


def test_many_threads_read_the_same(tmp_path):
    for slide in shared_slides():
        regions = [Region(Point(x, y), Size(70, 60)) for x in range(0, 200, 40) for y in range(0, 200, 40)]
        alone = [slide.read(region, 0.6) for region in regions]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda region: slide.read(region, 0.6), regions))  # noqa: B023
        assert all(np.array_equal(one, two) for one, two in zip(alone, together, strict=True))


def test_thumbnail_keeps_shape_and_says_its_mpp():
    slide = shared_slides()[0]
    rgb, mpp = slide.thumbnail(100)
    assert max(rgb.shape[:2]) == 100
    assert mpp == pytest.approx(0.25 * 4.17)


def test_missing_mpp_names_the_option(tmp_path):
    write_png(tmp_path / "a.png", picture(40, 40))
    with open_slide(tmp_path / "a.png") as slide:
        assert not slide.has_mpp
        assert slide.thumbnail(20)[0].shape == (20, 20, 3)
        with pytest.raises(RestainError, match=r"a\.png.*--mpp"):
            slide.read(Region(Point(0, 0), Size(4, 4)), 0.5)


def test_files_that_are_no_slides(tmp_path):
    (tmp_path / "a.svs").write_bytes(b"II*\0" + b"\xff" * 90)
    (tmp_path / "b.txt").write_text("no slide")
    (tmp_path / "c.svs").touch()
    (tmp_path / "empty").mkdir()
    for name, words in [
        ("a.svs", "damaged"),
        ("b.txt", "b.txt"),
        ("c.svs", "empty"),
        ("none.svs", "not exist"),
        ("empty", "empty"),
    ]:
        with pytest.raises(RestainError, match=words):
            open_slide(tmp_path / name)


def test_a_damaged_tiff_is_a_fault_and_reading_it_says_so(tmp_path):
    write_ome(tmp_path / "a.ome.tif", picture(150, 210))
    damaged = bytearray((tmp_path / "a.ome.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        at = tiff.pages[0].dataoffsets[0]
    damaged[at : at + 200] = bytes(200)
    (tmp_path / "a.ome.tif").write_bytes(damaged)
    with open_slide(tmp_path / "a.ome.tif") as slide, pytest.raises(RestainError, match="damaged"):
        everything(slide)


def write_dicom_series(folder: Path, rgb: np.ndarray, mpp: float, tile: int = 64) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit, generate_uid

    folder.mkdir()
    study, series, frame, pyramid, dimension = (generate_uid() for _ in range(5))
    for i, level in enumerate((rgb, halved(rgb))):
        height, width = level.shape[:2]
        frames = []
        padded = np.pad(level, ((0, -height % tile), (0, -width % tile), (0, 0)), mode="edge")
        for y in range(0, height, tile):
            for x in range(0, width, tile):
                buffer = io.BytesIO()
                Image.fromarray(padded[y : y + tile, x : x + tile]).save(buffer, "JPEG", quality=98, subsampling=0)
                frames.append(buffer.getvalue())
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID, ds.PyramidUID = study, series, frame, pyramid
        ds.Modality, ds.Manufacturer = "SM", "phantom"
        ds.ImageType = ["ORIGINAL" if i == 0 else "DERIVED", "PRIMARY", "VOLUME", "NONE" if i == 0 else "RESAMPLED"]
        ds.Rows = ds.Columns = tile
        ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixRows = width, height
        ds.ImagedVolumeWidth, ds.ImagedVolumeHeight, ds.ImagedVolumeDepth = (
            rgb.shape[1] * mpp / 1e3,
            rgb.shape[0] * mpp / 1e3,
            0.001,
        )
        ds.NumberOfFrames = len(frames)
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "YBR_FULL_422", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
        ds.DimensionOrganizationType = "TILED_FULL"
        ds.NumberOfOpticalPaths = ds.TotalPixelMatrixFocalPlanes = 1
        ds.FocusMethod, ds.ExtendedDepthOfField, ds.SpecimenLabelInImage = "AUTO", "NO", "NO"
        ds.BurnedInAnnotation, ds.VolumetricProperties, ds.LossyImageCompression = "NO", "VOLUME", "01"
        organization = Dataset()
        organization.DimensionOrganizationUID = dimension
        ds.DimensionOrganizationSequence = [organization]
        measures, shared, path = Dataset(), Dataset(), Dataset()
        measures.PixelSpacing, measures.SliceThickness = [mpp * 2**i / 1e3] * 2, 0.001
        shared.PixelMeasuresSequence = [measures]
        ds.SharedFunctionalGroupsSequence = [shared]
        path.OpticalPathIdentifier, path.ObjectiveLensPower = "0", "40"
        ds.OpticalPathSequence = [path]
        ds.PixelData = encapsulate(frames)
        ds["PixelData"].is_undefined_length = True
        pydicom.dcmwrite(folder / f"{i}.dcm", ds, enforce_file_format=True)


def test_a_dicom_series_is_one_pyramid(tmp_path):
    rgb = picture(200, 256)
    write_dicom_series(tmp_path / "series", rgb, 0.25)
    with open_slide(tmp_path / "series") as slide:
        assert [level.size for level in slide.levels] == [Size(256, 200), Size(128, 100)]
        assert (slide.mpp, slide.vendor, slide.objective) == (pytest.approx(0.25), "phantom", 40.0)
        assert np.abs(everything(slide).astype(int) - rgb).mean() < 4
        whole = slide.read(Region(Point(3, 5), Size(60, 40)), 0.7)
        parts = [slide.read(Region(Point(3 + x, 5), Size(20, 40)), 0.7) for x in (0, 20, 40)]
        assert np.array_equal(np.hstack(parts), whole)


def test_info_prints_the_facts_and_faults(tmp_path):
    write_ome(tmp_path / "a.ome.tif", picture(150, 210))
    shown = CliRunner().invoke(app, ["info", str(tmp_path / "a.ome.tif")])
    assert shown.exit_code == 0
    for words in ("OME-TIFF", "210 x 150", "0.25", "105 x 75"):
        assert words in shown.stdout
    write_png(tmp_path / "a.png", picture(40, 40))
    assert "--mpp" in CliRunner().invoke(app, ["info", str(tmp_path / "a.png")]).output


def test_a_tuple_is_a_region_of_level_0_whatever_the_mpp(tmp_path: Path) -> None:
    rgb = picture(80, 90)
    write_png(tmp_path / "a.png", rgb, mpp=0.5)
    with open_slide(tmp_path / "a.png") as slide:
        np.testing.assert_array_equal(slide.read((10, 20, 31, 42)), rgb[20:62, 10:41])
        region = Region(Point(5, 10), Size(15, 21))
        np.testing.assert_array_equal(slide.read((10, 20, 30, 42), 1.0), slide.read(region, 1.0))
        np.testing.assert_array_equal(slide.read(Region(Point(10, 20), Size(31, 42))), rgb[20:62, 10:41])
    write_png(tmp_path / "b.png", rgb)
    with open_slide(tmp_path / "b.png") as slide:
        np.testing.assert_array_equal(slide.read((0, 0, 8, 8)), rgb[:8, :8])
        with pytest.raises(RestainError, match="--mpp"):
            slide.read((0, 0, 8, 8), mpp=1.0)

"""OME-Zarr as tools write it: scales at both levels, collections, planes, and pyramids that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.slides.source_zarr import ZarrSource

zarr = pytest.importorskip("zarr")


def _write(
    group: Any,
    shapes: list[tuple[int, ...]],
    *,
    axes: str = "cyx",
    units: tuple[str | None, str | None] = ("micrometer", "micrometer"),
    scale: list[float] | None = None,
    outer: list[float] | None = None,
    value: int = 100,
    dtype: str = "uint8",
    version: str = "0.4",
) -> dict[str, Any]:
    """A multiscale image of one value, plus 10 for each plane; ``units`` are of y and x."""
    described: list[dict[str, str]] = []
    for axis in axes:
        unit = {"y": units[0], "x": units[1]}.get(axis)
        described.append({"name": axis} | ({"unit": unit} if unit else {}))
    for number, shape in enumerate(shapes):
        array = group.create_array(f"level{number}", shape=shape, dtype=dtype)
        array[...] = value
        for axis in set(axes) & {"z", "t"}:
            at = axes.index(axis)
            steps = np.arange(shape[at]).reshape([-1 if i == at else 1 for i in range(len(axes))])
            array[...] = (array[...] + 10 * steps).astype(dtype)
    datasets: list[dict[str, Any]] = [{"path": f"level{number}"} for number in range(len(shapes))]
    if scale is not None:
        datasets[0]["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
    multiscale: dict[str, Any] = {"axes": described, "datasets": datasets}
    if outer is not None:
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": outer}]
    if version == "0.4":
        group.attrs["multiscales"] = [multiscale]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale]}
    return multiscale


def _open(path: Path, version: str = "0.4") -> Any:
    return zarr.open_group(str(path), mode="a", zarr_format=2 if version == "0.4" else 3)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("scale", "outer", "unit", "mpp", "mpp_y"),
    [
        ([1, 0.25, 0.25], None, "micrometer", 0.25, 0.25),
        ([1, 1, 1], [1, 0.25, 0.25], "micrometer", 0.25, 0.25),
        ([1, 2, 2], [1, 0.25, 0.5], "micrometer", 1.0, 0.5),
        ([1, 500, 250], None, "nanometer", 0.25, 0.5),
        ([1, 5e-4, 5e-4], None, "millimeter", 0.5, 0.5),
        ([1, 5e-5, 5e-5], None, "centimeter", 0.5, 0.5),
        ([1, 0.5, 0.5], None, "µm", 0.5, 0.5),
        ([1, 0.5, 0.5], None, "Micrometers", 0.5, 0.5),
        ([1, 0.5, 0.5], None, "micrometre", 0.5, 0.5),
        ([1, 0.5, 0.5], None, None, None, None),
        ([1, 0, 0], None, "micrometer", None, None),
        (None, None, "micrometer", None, None),
    ],
)
def test_the_scale_is_of_both_levels_and_both_directions(
    tmp_path: Path, version: str, scale, outer, unit, mpp, mpp_y
) -> None:
    _write(_open(tmp_path / "a", version), [(3, 20, 30)], units=(unit, unit), scale=scale, outer=outer, version=version)
    source = ZarrSource(tmp_path / "a")
    assert (source.mpp, source.mpp_y) == (mpp and pytest.approx(mpp), mpp_y and pytest.approx(mpp_y))
    # A scale is never ignored in silence.
    assert bool(source.faults) is (scale == [1, 0.5, 0.5] and unit is None)


def test_units_of_the_axes_may_differ(tmp_path: Path) -> None:
    _write(_open(tmp_path / "a"), [(3, 20, 30)], units=("nanometer", "micrometer"), scale=[1, 500, 0.5])
    source = ZarrSource(tmp_path / "a")
    assert (source.mpp, source.mpp_y) == (pytest.approx(0.5), pytest.approx(0.5))


def _collection(path: Path, sizes: dict[str, tuple[int, int]], *, listed: list[str] | None = None) -> Path:
    group = _open(path)
    group.attrs["bioformats2raw.layout"] = 3
    about = group.create_group("OME")
    if listed is not None:
        about.attrs["series"] = listed
    for number, (name, (height, width)) in enumerate(sizes.items()):
        _write(group.create_group(name), [(3, height, width)], scale=[1, 0.5, 0.5], value=50 * (number + 1))
    return path


def test_the_only_image_of_a_collection_is_opened(tmp_path: Path) -> None:
    path = _collection(tmp_path / "c.zarr", {"0": (40, 60)})
    source = ZarrSource(path)
    assert (source.levels[0].size, source.mpp, source.images, source.refusals) == (Size(60, 40), 0.5, (), [])
    # A label and a macro beside it are listed, and nobody has to choose.
    path = _collection(tmp_path / "d.zarr", {"0": (9, 9), "1": (100, 80), "10": (20, 20), "2": (40, 12)})
    source = ZarrSource(path)
    assert (source.levels[0].size, source.refusals) == (Size(80, 100), [])
    assert source.associated == {"d.zarr/0": Size(9, 9), "d.zarr/2": Size(12, 40), "d.zarr/10": Size(20, 20)}


def test_of_several_images_one_is_chosen_by_number_or_by_its_folder(tmp_path: Path) -> None:
    path = _collection(tmp_path / "c.zarr", {"1": (40, 60), "0": (50, 60)}, listed=["1", "0"])
    source = ZarrSource(path)
    assert [one.name for one in source.images] == ["c.zarr/1", "c.zarr/0"]
    assert [one.size for one in source.images] == [Size(60, 40), Size(60, 50)]
    assert "c.zarr/1" in source.refusals[0]
    assert f"{path}#0" in source.refusals[0]
    for opened, value in ((ZarrSource(path, 0), 50), (ZarrSource(path, 1), 100), (ZarrSource(path / "0"), 100)):
        assert opened.refusals == []
        assert opened.read(0, Region(Point(1, 2), Size(3, 3))).tolist() == np.full((3, 3, 3), value).tolist()
    with pytest.raises(RestainError, match="no image 2"):
        ZarrSource(path, 2)


def test_images_that_are_listed_and_missing_are_told(tmp_path: Path) -> None:
    path = _collection(tmp_path / "c.zarr", {"0": (40, 60)}, listed=["0", "1"])
    with pytest.raises(RestainError, match="its image '1' is missing"):
        ZarrSource(path)


def test_several_multiscales_of_a_group_are_several_images(tmp_path: Path) -> None:
    group = _open(tmp_path / "a")
    one = _write(group, [(3, 40, 60), (3, 20, 30)])
    group.attrs["multiscales"] = [{**one, "name": "first"}, {**one, "name": "second"}]
    source = ZarrSource(tmp_path / "a")
    assert [image.name for image in source.images] == ["a (first)", "a (second)"]
    assert len(source.refusals) == 1
    assert len(ZarrSource(tmp_path / "a", 1).levels) == 2


@pytest.mark.parametrize("axis", ["z", "t"])
def test_planes_are_images_and_one_plane_is_none(tmp_path: Path, axis: str) -> None:
    _write(_open(tmp_path / "one"), [(1, 3, 40, 60)], axes=f"{axis}cyx")
    assert ZarrSource(tmp_path / "one").images == ()
    _write(_open(tmp_path / "several"), [(2, 3, 40, 60), (2, 3, 20, 30)], axes=f"{axis}cyx")
    source = ZarrSource(tmp_path / "several")
    assert [one.name for one in source.images] == [f"several, {axis} 0", f"several, {axis} 1"]
    assert len(source.refusals) == 1
    for number, value in enumerate((100, 110)):
        plane = ZarrSource(tmp_path / "several", number)
        assert plane.refusals == []
        for level in (0, 1):
            assert (plane.read(level, Region(Point(0, 0), Size(5, 4))) == value).all()


def test_levels_are_ordered_and_copies_of_the_finest(tmp_path: Path) -> None:
    _write(_open(tmp_path / "a"), [(3, 20, 31), (3, 83, 125), (3, 41, 62), (3, 40, 33), (3, 83, 125), (3, 5, 8)])
    source = ZarrSource(tmp_path / "a")
    assert [level.size for level in source.levels] == [Size(125, 83), Size(62, 41), Size(31, 20), Size(8, 5)]
    assert ["level3" in fault or "level4" in fault for fault in source.faults] == [True, True]


def test_labels_are_no_images(tmp_path: Path) -> None:
    group = _open(tmp_path / "a")
    _write(group, [(3, 40, 60)])
    cells = group.create_group("labels").create_group("cells")
    _write(cells, [(40, 60)], axes="yx", dtype="int32")
    cells.attrs["image-label"] = {"version": "0.4"}
    assert ZarrSource(tmp_path / "a").images == ()
    with pytest.raises(RestainError, match="label image"):
        ZarrSource(tmp_path / "a" / "labels" / "cells")


@pytest.mark.parametrize(
    ("shape", "axes", "dtype", "said"),
    [
        ((4, 40, 60), "cyx", "uint8", r"4 channel\(s\) of uint8"),
        ((3, 40, 60), "cyx", "uint16", r"3 channel\(s\) of uint16"),
        ((40, 60), "yx", "uint8", r"1 channel\(s\) of uint8"),
        ((3, 40), "cx", "uint8", "axes y and x"),
        ((2, 3, 40, 60), "acyx", "uint8", "axis 'a'"),
    ],
)
def test_what_is_no_rgb_is_refused_for_what_it_is(tmp_path: Path, shape, axes: str, dtype: str, said: str) -> None:
    _write(_open(tmp_path / "a"), [shape], axes=axes, dtype=dtype)
    with pytest.raises(RestainError, match=said):
        ZarrSource(tmp_path / "a")


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    _open(tmp_path / "empty")
    with pytest.raises(RestainError, match="no image"):
        ZarrSource(tmp_path / "empty")
    _write(_open(tmp_path / "a"), [(3, 40, 60)])
    with pytest.raises(RestainError, match="folder that holds its levels"):
        ZarrSource(tmp_path / "a" / "level0")
    _open(tmp_path / "plate").attrs["plate"] = {"wells": []}
    with pytest.raises(RestainError, match="plate of wells"):
        ZarrSource(tmp_path / "plate")

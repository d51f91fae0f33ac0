"""What a path names: numbers of images, folders that are slides, and files that belong to a slide."""

from __future__ import annotations

from pathlib import Path

import pytest

from restain.cohort.table import read_table as read_cohort
from restain.dataset_builder import read_table as read_pairs
from restain.errors import RestainError
from restain.slides import open_slide
from restain.slides.find import check_companions, is_slide_folder, is_there, split_number, stem_of
from restain.stain import Source, find_sources, slide_name

DICOM = b"\0" * 128 + b"DICM"
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 200


def test_a_number_is_split_off_unless_a_file_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "three-fields.tif#1"
    assert split_number(path) == (tmp_path / "three-fields.tif", 1)
    assert split_number(str(path)) == (tmp_path / "three-fields.tif", 1)
    assert (stem_of(path), slide_name(path)) == ("three-fields-1", "three-fields-1")
    assert slide_name(tmp_path / "a.ome.zarr#12") == "a-12"
    assert not is_there(path)
    (tmp_path / "three-fields.tif").touch()
    assert is_there(path)
    path.touch()
    assert split_number(path) == (path, None)
    assert split_number(tmp_path / "a#b.tif") == (tmp_path / "a#b.tif", None)
    assert not is_there(tmp_path / ("x" * 300))


def test_lists_of_slides_take_numbers_and_give_results_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "f.tif").touch()
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1").write_bytes(DICOM)
    both = [tmp_path / "f.tif#0", tmp_path / "f.tif#1", tmp_path / "s#1"]
    assert find_sources(both) == [Source(path) for path in both]
    with pytest.raises(RestainError, match="would both become f-1"):
        find_sources([*both, tmp_path / "f.tif#1"])
    for missing in ("g.tif#1", "f.tif#x"):
        with pytest.raises(RestainError, match="no such image"):
            find_sources([tmp_path / missing])
    table = tmp_path / "t.csv"
    table.write_text("slide,patient,block\nf.tif#0,1,A\nf.tif#1,2,A\ns#1,3,A\ns,4,A\n")
    assert [source.path.name for source in find_sources([table])] == ["f.tif#0", "f.tif#1", "s#1", "s"]
    assert [row.slide.name for row in read_cohort(table)] == ["f.tif#0", "f.tif#1", "s#1", "s"]
    table.write_text("slide,patient,block\ng.tif#0,1,A\n")
    for read in (lambda path: find_sources([path]), read_cohort):
        with pytest.raises(RestainError, match=r"g\.tif#0"):
            read(table)
    table.write_text("he,ihc,level,patient,block\nf.tif#0,f.tif#1,2+,1,A\ns#0,s#1,2+,2,A\n")
    assert [(pair.he.name, pair.ihc.name) for pair in read_pairs(table)] == [("f.tif#0", "f.tif#1"), ("s#0", "s#1")]


@pytest.mark.parametrize("stray", ["README", ".DS_Store", "a.jpg", "z.png", "Thumbs.db", "0.txt"])
def test_a_series_is_one_slide_whatever_lies_beside_it(tmp_path: Path, stray: str) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / stray).write_bytes(JPEG)
    assert not is_slide_folder(folder)
    (folder / "m").write_bytes(DICOM)
    assert is_slide_folder(folder)
    assert find_sources([folder]) == find_sources([tmp_path]) == [Source(folder)]


def test_a_folder_of_slides_of_several_formats_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    (tmp_path / "b.dcm").write_bytes(DICOM)
    assert not is_slide_folder(tmp_path)
    assert [source.path.name for source in find_sources([tmp_path])] == ["a.svs", "b.dcm"]
    assert not is_slide_folder(tmp_path / "a.svs")
    assert not is_slide_folder(tmp_path / "none")


@pytest.mark.parametrize("metadata", ["zarr.json", ".zattrs", ".zgroup"])
def test_a_zarr_is_one_slide(tmp_path: Path, metadata: str) -> None:
    (tmp_path / metadata).touch()
    assert is_slide_folder(tmp_path)


def test_a_slide_without_its_files_is_never_a_picture(tmp_path: Path) -> None:
    slide = tmp_path / "a.MRXS"
    slide.write_bytes(JPEG)
    with pytest.raises(RestainError, match=r"the folder .*a with its pixels is missing"):
        open_slide(slide)
    (tmp_path / "a").mkdir()
    with pytest.raises(RestainError, match=r"Slidedat\.ini is missing"):
        open_slide(slide)
    (tmp_path / "a" / "Slidedat.ini").touch()
    check_companions(slide)
    vms = tmp_path / "b.vms"
    vms.write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nImageFile=b.jpg\nImageFile(1,0)=c.jpg\nMacroImage=m.jpg\n"
    )
    for name in ("b.jpg", "c.jpg", "m.jpg"):
        with pytest.raises(RestainError, match=f"file .*{name} is missing"):
            open_slide(vms)
        (tmp_path / name).write_bytes(JPEG)
    check_companions(vms)
    vms.write_bytes(JPEG)
    with pytest.raises(RestainError, match="no Hamamatsu slide"):
        open_slide(vms)
    (tmp_path / "c.vsi").write_bytes(b"II*\0" + b"\0" * 200)
    with pytest.raises(RestainError, match=r"\.ets files"):
        open_slide(tmp_path / "c.vsi")

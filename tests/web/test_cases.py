"""Patient and block of slides, from a table, DICOM and folders, and the tree of folders."""

import os
import re
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from restain import NOTICE
from restain.geometry import Size
from restain.images import write_png
from restain.slides import TileStore
from restain.slides.dicom import write_dicom
from restain.web.cases import Case, Cases, folder_tree, in_order
from restain.web.library import Library

RGB = np.full((64, 64, 3), 200, np.uint8)


def write_slide_of(folder: Path, name: str, patient: str, block: str) -> None:
    """A DICOM series as an archive holds it, with a patient."""
    with TileStore.open(folder / f"{name}.part", {}, Size(64, 64), 64, "rgb") as store:
        store.put(0, 0, RGB)
        write_dicom(store, folder / name, mpp=0.5, metadata={})
        store.discard()
    for path in (folder / name).glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PatientID = patient
        dataset.SpecimenDescriptionSequence[0].SpecimenShortDescription = block
        dataset.save_as(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cases") / "slides"
    for name in ("P1/A1/he.png", "P1/A1/ihc.png", "P1/B2/he2.png", "loose.png", "odd/listed.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(root / name, RGB, {}, 0.5)
    write_png(root / "stained.png", RGB, {"notice": NOTICE, "source": "he.png", "bundle_hash": "0"}, 0.5)
    write_slide_of(root, "series", "P7", "C3")
    write_slide_of(root, "anonymous", "", "C4")
    (root / "cases.csv").write_text("slide,patient,block\nodd/listed.png,P9,Z1\n")
    (root / "P1" / "cohort.html").write_text("<title>Cohort</title>")
    return root


def cases_of(root: Path, library: Library) -> dict[str, Case]:
    found = Cases(root).of_all(library.images(), library.source)
    return {library.get(identity).name: case for identity, case in found.items()}


def test_the_case_is_that_of_the_table_else_of_dicom_else_of_the_folders(root: Path):
    found = cases_of(root, Library(root))
    assert found["odd/listed.png"] == Case("P9", "Z1")
    assert found["series"] == Case("P7", "C3")
    assert found["anonymous"] == found["loose.png"] == Case("", "")
    assert found["P1/A1/he.png"] == Case("P1", "A1")


def test_a_virtual_stain_belongs_to_the_case_of_its_source(root: Path):
    assert cases_of(root, Library(root))["stained.png"] == Case("P1", "A1")


def test_images_are_sorted_by_case_those_without_last(root: Path):
    library = Library(root)
    images = library.images()
    found = in_order(images, Cases(root).of_all(images, library.source), "case")
    assert [one.name for one in found][:4] == ["P1/A1/he.png", "P1/A1/ihc.png", "stained.png", "P1/B2/he2.png"]
    assert {one.name for one in found[-2:]} == {"anonymous", "loose.png"}


def test_the_tree_opens_the_chosen_folder_and_counts_what_is_below(root: Path):
    images = Library(root).images()
    closed = folder_tree(images, "")
    assert [(one.path, one.count, one.branches) for one in closed] == [("odd", 1, ()), ("P1", 3, ())]
    inside = folder_tree(images, "P1/A1")[1].branches
    assert [(one.path, one.name, one.count) for one in inside] == [("P1/A1", "A1", 2), ("P1/B2", "B2", 1)]


def test_the_page_groups_by_case_links_reports_and_keeps_filters_in_the_tree(root: Path, start, tmp_path: Path):
    server = start(tmp_path, of=root)
    try:
        page = server.get("/?sort=case", headers={"Accept-Language": "en"}).text
        heads = re.findall(r"<h2>(.*?)</h2>", page)
        assert heads[:2] == ["Patient P1 · block A1", "Patient P1 · block B2"]
        assert "No case" in heads[-1]
        assert page.count('href="cohort/P1/cohort.html"') == 2
        assert "sort=case&amp;folder=P1" in page
        assert "Cohort" in server.get("/cohort/P1/cohort.html").text
        inside = server.get("/?folder=P1/A1", headers={"Accept-Language": "en"}).text
        assert 'aria-current="true">A1' in inside
        assert len(re.findall(r'<li class="card ', inside)) == 2
    finally:
        server.stop()


def test_facts_of_unchanged_files_outlive_the_library_and_those_of_changed_ones_do_not(tmp_path: Path, monkeypatch):
    root, state = tmp_path / "slides", tmp_path / "state"
    root.mkdir()
    for name in ("a.png", "b.png"):
        write_png(root / name, RGB, {"notice": "synthetic tissue"}, 0.5)
    Library(root, state).images()
    read = []
    monkeypatch.setattr("restain.web.library.image_numbers", lambda path: read.append(path.name) or ())
    assert all(one.provenance.synthetic for one in Library(root, state).images())
    assert read == []
    later = time.time_ns() + 5_000_000_000
    os.utime(root / "b.png", ns=(later, later))
    Library(root, state).images()
    assert read == ["b.png"]
    (state / "provenance.json").write_text("{")
    assert len(Library(root, state).images()) == 2
    assert read == ["b.png", "a.png", "b.png"]

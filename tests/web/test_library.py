"""What the library finds, and what it takes to belong together."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from restain.geometry import Size
from restain.images import write_png
from restain.web.errors import RequestError
from restain.web.library import Library
from restain.web.provenance import ImageKind, bare_name, read_provenance
from restain.web.tiles import Tiles

from ..samples import write_slide

HE, VIRTUAL, IHC = "block_1.ome.tiff", "virtual/block_1.ome.tiff", "ihc/her2 §1.ome.tiff"


@pytest.fixture(scope="module")
def library(folder: Path) -> Library:
    return Library(folder)


def by_name(library: Library) -> dict[str, object]:
    return {image.name: image for image in library.images()}


def test_every_image_is_listed_once_and_overlays_and_links_are_not(library: Library):
    names = list(by_name(library))
    assert {HE, VIRTUAL, IHC, "odd/broken.png"} <= set(names)
    assert len(names) == len(set(names))
    assert not any("dab" in name or "linked" in name or "secret" in name or "overlay" in name for name in names)


def test_a_virtual_stain_knows_its_source_and_the_source_its_versions(library: Library):
    images = by_name(library)
    assert images[VIRTUAL].kind is ImageKind.VIRTUAL
    assert library.related(images[VIRTUAL]).source.name == HE
    related = library.related(images[HE])
    assert [one.name for one in related.virtual] == [VIRTUAL]
    assert related.overlays[images[VIRTUAL].id].density.name == "virtual/block_1.dab.ome.tiff"
    assert related.overlays[images[HE].id].density is None
    assert images[HE].kind is ImageKind.HE  # by its stained version; its name does not say


def test_a_registration_joins_two_slides(library: Library):
    (found,) = library.related(by_name(library)[HE]).chemical
    assert found.image.name == IHC
    assert found.registration.folder.name == "registration"
    assert library.related(by_name(library)[IHC]).chemical == ()


def test_a_pair_of_one_name_belongs_together_and_tells_its_level(library: Library):
    he = by_name(library)["BCI/HE/train/00001_train_2+.png"]
    (found,) = library.related(he).chemical
    ihc = found.image
    assert (ihc.name, found.registration, found.checked) == ("BCI/IHC/train/00001_train_2+.png", None, False)
    assert (he.provenance.level, he.kind, ihc.kind) == ("2+", ImageKind.HE, ImageKind.IHC)


def test_metadata_of_a_phantom_slide_and_of_built_patches_join_images_of_one_grid(tmp_path: Path):
    pixels = np.zeros((64, 64, 3), np.uint8)
    for name in ("he", "ihc", "ihc-registered"):
        metadata = {"notice": "synthetic tissue", "phantom slide": '{"seed": 1}', "output": name}
        write_slide(tmp_path / "case" / f"{name}.ome.tiff", pixels, metadata)
    density = {"notice": "synthetic tissue", "phantom slide": '{"seed": 1}', "output": "dab"}
    write_slide(tmp_path / "case" / "dab.ome.tiff", pixels[..., 0].astype(np.float32), density)
    for stain in ("HE", "IHC"):
        folder = tmp_path / "built" / stain / "train"
        folder.mkdir(parents=True)
        write_png(folder / "a.png", pixels, {"restain build": "5f"}, 0.5)
        write_png(folder / "b.png", pixels, {}, 0.5)
    library = Library(tmp_path)
    images = by_name(library)
    related = library.related(images["case/he.ome.tiff"])
    (found,) = related.chemical
    assert (found.image.name, found.registration, found.checked) == ("case/ihc-registered.ome.tiff", None, True)
    assert related.overlays[found.image.id].density.name == "case/dab.ome.tiff"
    checked = {n: library.related(images[f"built/HE/train/{n}.png"]).chemical[0].checked for n in "ab"}
    assert checked == {"a": True, "b": False}


def test_the_outline_is_offered_for_the_slide_in_whose_px_it_is(library: Library):
    images = by_name(library)
    overlays = library.related(images[HE]).overlays
    found = {images[name].id: set(overlays[images[name].id].outlines) for name in (HE, VIRTUAL)}
    assert found == {images[HE].id: {"tissue"}, images[VIRTUAL].id: {"ood"}}
    assert library.related(images[VIRTUAL]).overlays[images[VIRTUAL].id].outlines == {}


def test_of_two_slides_of_one_name_the_nearest_is_the_source(folder: Path, tmp_path: Path):
    for patient in ("a", "b"):
        (tmp_path / patient / "virtual").mkdir(parents=True)
        shutil.copy(folder / HE, tmp_path / patient / HE)
    shutil.copy(folder / VIRTUAL, tmp_path / "b" / VIRTUAL)
    library = Library(tmp_path)
    assert library.related(by_name(library)[f"b/{VIRTUAL}"]).source.name == f"b/{HE}"
    assert library.related(by_name(library)[f"a/{HE}"]).virtual == ()


def test_an_image_replaced_by_a_link_out_of_the_folder_is_gone(tmp_path: Path):
    root, secret = tmp_path / "root", tmp_path / "secret.png"
    root.mkdir()
    for path in (root / "a.png", secret):
        Picture.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    library = Library(root)
    (image,) = library.images()
    (root / "a.png").unlink()
    os.symlink(secret, root / "a.png")
    with pytest.raises(RequestError, match="no_image"):
        library.get(image.id)


def test_a_slide_one_of_whose_files_lies_outside_is_passed_over(tmp_path: Path):
    root, secret = tmp_path / "root", tmp_path / "Data0000.dat"
    (root / "a").mkdir(parents=True)
    secret.write_bytes(b"secret")
    (root / "a.mrxs").write_bytes(b"")
    os.symlink(secret, root / "a" / "Data0000.dat")
    (root / "b").mkdir()
    (root / "b" / "zarr.json").write_text("{}")
    os.symlink(secret, root / "b" / "c")
    assert Library(root).images() == []


def test_a_link_within_the_folder_is_followed(tmp_path: Path):
    Picture.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    os.symlink(tmp_path / "a.png", tmp_path / "b.png")
    assert list(by_name(Library(tmp_path))) == ["a.png", "b.png"]


def test_a_changed_file_has_another_stamp(tmp_path: Path):
    path = tmp_path / "a.png"
    Picture.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    library = Library(tmp_path)
    (before,) = library.images()
    Picture.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    os.utime(path, (1, 1))
    assert library.get(before.id).stamp != before.stamp


@pytest.mark.parametrize(
    ("name", "bare"),
    [("a.b.ome.tiff", "a.b"), ("a.svs", "a"), ("a.OME.TIF", "a"), ("a.ome.zarr", "a"), ("a.dicom", "a")],
)
def test_names_without_suffixes(name: str, bare: str):
    assert bare_name(Path(name)) == bare


def test_an_unreadable_file_has_an_unknown_origin(tmp_path: Path):
    (tmp_path / "a.tiff").write_bytes(b"II*\0\xff\xff\xff\xff")
    assert read_provenance(tmp_path / "a.tiff", "a.tiff").kind is ImageKind.PICTURE


def test_each_image_of_a_file_is_an_entry_of_its_own(tmp_path: Path):
    rng = np.random.default_rng(0)
    with tifffile.TiffWriter(tmp_path / "fields.ome.tif", ome=True) as tiff:
        for _ in range(2):
            tiff.write(rng.integers(0, 255, (600, 700, 3)).astype(np.uint8), photometric="rgb", tile=(256, 256))
    library = Library(tmp_path)
    assert list(by_name(library)) == ["fields.ome.tif#0", "fields.ome.tif#1"]
    tiles = Tiles(library, tmp_path / "state")
    first, second = library.images()
    assert tiles.facts(first).size == Size(700, 600)
    assert tiles.tile(first, 1, 0, 0) != tiles.tile(second, 1, 0, 0)
    assert bare_name(second.path) == "fields-1"
    assert library.named("fields.ome.tif") == first
    (tmp_path / "fields.ome.tif").unlink()
    with pytest.raises(RequestError):
        library.get(first.id)


def test_an_outline_is_served_for_its_own_stain_alone(server):
    he, virtual = server.id_of(HE), server.id_of(VIRTUAL)
    assert server.image(HE, f"outlines/{virtual}/ood").status_code == 200
    assert server.image(HE, f"outlines/{he}/tissue").status_code == 200
    for other in (f"outlines/{he}/ood", f"outlines/{virtual}/tissue", f"outlines/{server.id_of(IHC)}/ood"):
        assert server.image(HE, other).status_code == 404


def test_a_pair_of_one_name_is_not_called_registered(server):
    pair = server.get("/?q=BCI/HE", headers={"Accept-Language": "en"}).text
    assert "paired by name, alignment not checked" in pair
    assert "Registered IHC" not in pair
    assert "Registered IHC" in server.get(f"/?q={HE}", headers={"Accept-Language": "en"}).text
    assert (
        "alignment not checked"
        in server.get(
            f"/view/{server.id_of('BCI/HE/train/00001_train_2+.png')}", headers={"Accept-Language": "en"}
        ).text
    )

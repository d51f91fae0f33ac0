"""The look beforehand: kept with an unfinished result, and read from by blocks of any size."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from restain.bundle import Bundle
from restain.geometry import Point, Region
from restain.models.attention import ResidualAttentionBlock
from restain.models.state_grid import is_local
from restain.models.survey import Survey
from restain.slides import open_slide, read_metadata, tissue_mask
from restain.stain import Model, StainOptions, stain_slide
from restain.stain.area import Area
from restain.stain.survey import SlideSurvey, kept_survey, places

WINDOW = 128
ONE, GRID = Survey(window=WINDOW), Survey(window=WINDOW, spacing=200)


def look(slide: Path, model: Model, survey: Survey, folder: Path, identity: str = "one") -> SlideSurvey:
    with open_slide(slide) as opened:
        area = Area(tissue_mask(opened), opened.mpp, 0.5)
        windows = places(opened, model.mpp, survey, area)
        return kept_survey(folder, {"identity": identity}, opened, model, survey, windows)


@pytest.mark.slow
@pytest.mark.parametrize("survey", [ONE, GRID], ids=["one state", "grid"])
def test_it_is_kept_and_taken_from_there(
    survey: Survey, small: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(bundle)
    made = look(small, model, survey, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("restain.stain.survey.look_around", lambda *_: pytest.fail("it looked again"))
        kept = look(small, model, survey, tmp_path)
    assert (kept.windows, kept.ood) == (made.windows, made.ood)
    assert made.grid is not None
    assert kept.grid is not None
    assert kept.grid.lattice == made.grid.lattice
    assert np.array_equal(kept.grid.index, made.grid.index)
    for a, b in zip(kept.grid.states, made.grid.states, strict=True):
        assert torch.equal(a.log_mass, b.log_mass)
        assert torch.equal(a.mean, b.mean)
    whole = kept.grid.around(Region(Point(0, 0), kept.grid.lattice.size))
    assert is_local(whole) == (survey.spacing is not None)


@pytest.mark.slow
def test_another_job_looks_again(small: Path, bundle: Bundle, tmp_path: Path) -> None:
    coarse = look(small, Model(bundle), ONE, tmp_path, "coarse")
    fine = look(small, Model(bundle), GRID, tmp_path, "fine")
    assert coarse.grid is not None
    assert fine.grid is not None
    assert coarse.grid.index.size == 1
    assert fine.grid.index.shape == (3, 4)


@pytest.mark.slow
def test_states_without_their_places_are_not_taken(small: Path, bundle: Bundle, tmp_path: Path) -> None:
    model = Model(bundle)
    look(small, model, GRID, tmp_path)
    (file,) = tmp_path.iterdir()
    with safe_open(file, "pt") as opened:
        facts = opened.metadata()
    tensors = load_file(file)
    del tensors["index"]
    save_file(tensors, file, facts)
    assert (again := look(small, model, GRID, tmp_path)).grid is not None
    assert len(again.grid.states) == 2


@pytest.mark.slow
def test_blocks_of_any_size_read_the_same_from_a_grid(
    slide: Path, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle", label_feature=False)  # untrained, it reaches far beyond the margin
    for block in bundle.generator.modules():
        if isinstance(block, ResidualAttentionBlock):
            torch.nn.init.ones_(block.scale)
    # Coarser steps of JPEG would be taken for differences.
    model, fine, images = Model(bundle), StainOptions(quality=100), {}
    for name, tile, survey in (("small", 512, GRID), ("large", 1024, GRID), ("one", 1024, ONE)):
        result = stain_slide(slide, tmp_path / name, model, fine.having(tile=tile, survey=survey))
        images[name] = tifffile.imread(result.path, key=0).astype(int)
    assert np.abs(images["small"] - images["large"]).max() <= 3
    assert np.abs(images["small"] - images["large"]).mean() < 0.1
    assert np.abs(images["one"] - images["large"]).max() > 3
    assert "in each of cells of 200 px" in read_metadata(tmp_path / "small" / result.path.name)["survey"]

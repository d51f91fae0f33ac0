import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain import NOTICE, RestainError
from restain.evaluation.slide_pair import compare_slides
from restain.her2 import Her2Level
from restain.phantom import make_pair

MPP = 0.5
SHIFT = (24, -10)
"""px by which the real slide's tissue lies right and below of the virtual one's."""


def save(path: Path, rgb: np.ndarray) -> Path:
    Image.fromarray(rgb).save(path, dpi=(25400 / MPP, 25400 / MPP))
    return path


def on_glass(rgb: np.ndarray, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    canvas = np.full((900, 1000, 3), 238, np.uint8)
    top, left = 120 + shift[1], 150 + shift[0]
    canvas[top : top + rgb.shape[0], left : left + rgb.shape[1]] = rgb
    return canvas


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("slides")
    pair = make_pair(5, 0, Her2Level.THREE, size=640, mpp=MPP)
    shift = {"matrix": [[1, 0, SHIFT[0]], [0, 1, SHIFT[1]]]}
    (folder / "shift.json").write_text(json.dumps(shift))
    faded = 238 * (pair.ihc / 238.0) ** 0.6
    return {
        "he": save(folder / "he.png", on_glass(pair.he)),
        "same": save(folder / "same.png", on_glass(pair.ihc)),
        "faded": save(folder / "faded.png", on_glass(faded.astype(np.uint8))),
        "real": save(folder / "real.png", on_glass(pair.ihc, SHIFT)),
        "shift": folder / "shift.json",
    }


def figures(out: Path) -> dict[str, object]:
    return json.loads((out / "slides.json").read_text())


@pytest.mark.slow
def test_the_same_slide_agrees_and_a_faded_one_is_too_weak_in_the_same_places(
    slides: dict[str, Path], tmp_path: Path
) -> None:
    given = {"he": slides["he"], "transform": slides["shift"], "side_um": 160.0}
    compare_slides(slides["same"], slides["real"], tmp_path / "same", **given)
    page = compare_slides(slides["faded"], slides["real"], tmp_path / "faded", **given)
    same, faded = figures(tmp_path / "same"), figures(tmp_path / "faded")
    assert same["fields"] == faded["fields"] >= 4
    assert same["pooled"]["dab_r16_pooled"]["mean"] > 0.999
    assert same["means"]["dab_mean_error"] < 0.001
    assert faded["pooled"]["dab_r16_pooled"]["mean"] > 0.9
    assert faded["means"]["dab_mean_virtual"] < 0.8 * faded["means"]["dab_mean_real"]
    assert faded["pooled"]["he_r16"]["mean"] < faded["pooled"]["dab_r16_pooled"]["mean"]
    text = page.read_text()
    assert NOTICE in text
    assert len(re.findall("<rect ", text)) == 4 * faded["fields"]
    assert "own hematoxylin" in text
    for name in re.findall(r'href="(pictures/[^"]+)"', text):
        assert (page.parent / name).is_file()
    rows = list(csv.DictReader((tmp_path / "faded" / "fields.csv").read_text().splitlines()))
    assert len(rows) == faded["fields"]
    mean = np.mean([float(row["dab_mean_virtual"]) for row in rows])
    assert mean == pytest.approx(faded["means"]["dab_mean_virtual"], rel=0.1)


@pytest.mark.slow
def test_the_two_are_brought_into_register(slides: dict[str, Path], tmp_path: Path) -> None:
    compare_slides(slides["same"], slides["real"], tmp_path, side_um=160.0)
    assert figures(tmp_path)["pooled"]["dab_r16_pooled"]["mean"] > 0.97
    assert (tmp_path / "transform" / "transform.json").is_file()


@pytest.mark.slow
def test_it_goes_on_with_the_next_field(
    slides: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > 600:
            raise StopError

    given = {"transform": slides["shift"], "side_um": 160.0}
    with pytest.raises(StopError):
        compare_slides(slides["same"], slides["real"], tmp_path, progress=stop, **given)
    kept = (tmp_path / "fields.part.jsonl").read_text().splitlines()
    assert len(kept) > 1
    (tmp_path / "fields.part.jsonl").write_text("\n".join(kept) + '\n{"region": [0, 0')  # the kill tore a line
    measured = []
    monkeypatch.setattr(
        "restain.evaluation.slide_pair.Scorer", lambda *a: measured.append(a) or _scorer(*a), raising=True
    )
    compare_slides(slides["same"], slides["real"], tmp_path, **given)
    assert len(measured) == figures(tmp_path)["fields"] - (len(kept) - 1)
    assert sum(1 for _ in (tmp_path / "fields.csv").open()) == figures(tmp_path)["fields"] + 1
    assert not (tmp_path / "fields.part.jsonl").exists()


def _scorer(*arguments: object) -> object:
    from restain.evaluation.scoring import Scorer

    return Scorer(*arguments)


def test_what_cannot_be_compared_is_one_sentence(slides: dict[str, Path], tmp_path: Path) -> None:
    away = tmp_path / "away.json"
    away.write_text("[[1, 0, 5000], [0, 1, 0]]")
    with pytest.raises(RestainError, match="no field has tissue on both slides"):
        compare_slides(slides["same"], slides["real"], tmp_path / "out", transform=away)
    with pytest.raises(RestainError, match=r"gone\.svs does not exist"):
        compare_slides(tmp_path / "gone.svs", slides["real"], tmp_path / "out")
    nowhere = tmp_path / "nowhere.png"
    Image.fromarray(on_glass(np.full((600, 600, 3), 120, np.uint8))).save(nowhere)
    with pytest.raises(RestainError, match="does not say its micrometres per pixel"):
        compare_slides(slides["same"], nowhere, tmp_path / "out", transform=slides["shift"])

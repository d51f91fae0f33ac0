"""StudyTiles to take away."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from restain import NOTICE
from restain.web.snapshot import Pane, burn_notice, draw_snapshot, round_length

HE, VIRTUAL = "block_1.ome.tiff", "virtual/block_1.ome.tiff"


def red_share(rgb: np.ndarray) -> float:
    red, green, _ = np.moveaxis(rgb.astype(int), -1, 0)
    return float((red - green > 60).mean())


def test_a_virtual_pane_says_so_over_its_pixels_too():
    white = np.full((400, 500, 3), 255, np.uint8)
    for quarter in (
        burn_notice(white)[:200],
        burn_notice(white)[200:],
        burn_notice(white)[:, :250],
        burn_notice(white)[:, 250:],
    ):
        assert red_share(quarter) > 0.001
    picture = Image.open(io.BytesIO(draw_snapshot([Pane(white, "a", True)], 0.5)))
    assert picture.text["notice"] == NOTICE
    assert red_share(np.asarray(picture)[:30]) > 0.5


def test_a_real_pane_keeps_its_pixels():
    rgb = np.random.default_rng(0).integers(0, 255, (100, 60, 3)).astype(np.uint8)
    picture = Image.open(io.BytesIO(draw_snapshot([Pane(rgb, "a", False)], None)))
    assert np.array_equal(np.asarray(picture)[-100:], rgb)
    assert "notice" not in picture.text


@given(st.floats(1e-3, 1e7))
def test_a_scale_bar_is_a_round_length_that_fits(most: float):
    length = round_length(most)
    assert length <= most * (1 + 1e-6)
    assert length > most / 2.5 * (1 - 1e-6)


def test_the_server_joins_two_images(server):
    asked = {"x": 375, "y": 275, "mpp": 1, "width": 300, "height": 200, "beside": server.id_of(VIRTUAL)}
    answer = server.image(HE, "snapshot.png", params=asked)
    assert answer.status_code == 200
    assert "attachment" in answer.headers["content-disposition"]
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.width > 600
    assert picture.text["notice"] == NOTICE


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 99999},
        {"height": 0},
        {"mpp": 0},
        {"mpp": "nan"},
        {"mpp": 1e8},
        {"x": "inf"},
        {"y": "<b>"},
        {"x": None},
    ],
)
def test_absurd_pictures_are_refused(server, wrong):
    asked = {"x": 0, "y": 0, "mpp": 1, "width": 300, "height": 200} | wrong
    answer = server.image(HE, "snapshot.png", params={k: v for k, v in asked.items() if v is not None})
    assert answer.status_code == 400
    assert answer.json()["error"]

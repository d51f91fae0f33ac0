"""The first screen of a report says what metrics.json says, and its curtains move in a browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restain.data import open_pairs
from restain.evaluation import Evaluation, EvaluationSection, evaluate, overview, write_page
from restain.images import write_png
from restain.optics import DAB, HEMATOXYLIN, mix, transmit
from restain.prediction import Prediction
from restain.slides import read_image

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
SIDE = 640


def stained(seed: int, hematoxylin: float, dab: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spots = [np.kron(rng.random((SIDE // 16, SIDE // 16)) > 0.6, np.ones((16, 16))) for _ in range(2)]
    light = transmit(mix(np.stack([spots[0] * hematoxylin, spots[1] * dab], axis=-1), (HEMATOXYLIN, DAB)), 240)
    return np.clip(light.round() + rng.integers(-2, 3, light.shape), 0, 255).astype(np.uint8)


class Half:
    """Answers with the real image at a given strength of DAB, and a yellow cast on request."""

    label = "half"

    def __init__(self, root: Path, *, cast: int = 0) -> None:
        self.real = iter(sorted((root / "IHC" / "test").iterdir()))
        self.cast = cast

    def predict(self, he: np.ndarray) -> Prediction:
        rgb = read_image(next(self.real)).astype(int)
        rgb[..., 2] -= self.cast
        return Prediction(np.clip(rgb, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split, levels in (("train", ("0", "3+")), ("test", ("0", "2+", "3+"))):
        for number, level in enumerate(levels):
            for stain, dab in (("HE", 0.0), ("IHC", {"0": 0.0, "2+": 0.3, "3+": 0.8}[level])):
                (root / stain / split).mkdir(parents=True, exist_ok=True)
                seed = number + (10 if split == "test" else 0) + (100 if stain == "HE" else 0)
                write_png(root / stain / split / f"0000{number}_{split}_{level}.png", stained(seed, 0.4, dab))
    return root


@pytest.fixture(scope="module")
def result(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    out = tmp_path_factory.mktemp("report")
    return evaluate(Half(root, cast=40), open_pairs(root), "test", out, mpp=1.0, features=None, align=False)


def chart(result: Evaluation, title: str) -> dict[str, overview.Bar]:
    (found,) = [chart for chart in overview.charts(result.metrics) if chart.title == title]
    return {bar.kind: bar for bar in found.bars}


def number(text: str) -> float:
    return float(text.replace("−", "-").rstrip(" →"))


@pytest.mark.slow
def test_bars_and_their_texts_are_those_of_the_metrics(result: Evaluation) -> None:
    overall = result.metrics["overall"]
    for title, key, digits in (
        ("Is DAB where DAB is?", "dab_r16_pooled", 2),
        ("Is the rest white?", "background_de", 1),
    ):
        bars = chart(result, title)
        assert {"model", "baseline_linear", "oracle_flat"} < set(bars)
        for method, bar in bars.items():
            assert number(bar.text) == pytest.approx(overall[method][key]["mean"], abs=0.51 * 10**-digits), (
                title,
                method,
            )
            assert 0 <= bar.left <= bar.left + bar.width <= 100.01
    where = chart(result, "Is DAB where DAB is?")
    assert {"baseline_he", "baseline_hematoxylin_smooth"} < set(where)
    longest = max(where, key=lambda method: where[method].width)
    assert overall[longest]["dab_r16_pooled"]["mean"] == max(abs(overall[m]["dab_r16_pooled"]["mean"]) for m in where)


def test_readings_are_shares_of_images_read_right(result: Evaluation) -> None:
    bars = chart(result, "Is the HER2 level read right?")
    for method in ("model", "real", "baseline_hematoxylin"):
        for reader in ("classifier", "rule"):
            share = result.metrics["reading"][method][reader]["patch"]["accuracy"]["mean"]
            assert bars[f"{method} {reader}"].text == f"{round(3 * share)} of 3"
            assert bars[f"{method} {reader}"].width == pytest.approx(100 * share, abs=0.01)


@pytest.mark.slow
def test_without_levels_an_image_is_compared_with_how_its_real_one_is_read(root: Path, tmp_path: Path) -> None:
    for stain, side in (("HE", "A"), ("IHC", "B")):
        for split, name in (("train", "train"), ("test", "val")):
            (tmp_path / f"{name}{side}").mkdir()
            for path in (root / stain / split).iterdir():
                shutil.copy(path, tmp_path / f"{name}{side}" / f"{path.stem[:5]}{split}_1.png")
    same = evaluate(Half(root), open_pairs(tmp_path), "test", tmp_path / "out", mpp=1.0, features=None, align=False)
    bars = chart(same, "Is it read like the real IHC?")
    assert [bars[f"model {reader}"].text for reader in ("classifier", "rule")] == ["3 of 3", "3 of 3"]


@pytest.mark.slow
def test_sentences_judge_each_picture_by_its_own_figures(root: Path, result: Evaluation, tmp_path: Path) -> None:
    good = evaluate(Half(root), open_pairs(root), "test", tmp_path, mpp=1.0, features=None, align=False)
    name = "00002_test_3+"
    cast, perfect = (overview.picture_words(one.metrics, name) for one in (result, good))
    row = next(r for r in result.metrics["per_image"] if r["name"] == name and r["method"] == "model")
    assert f"background off by ΔE₀₀ {row['background_de']:.1f}, yellower" in cast["virtual"].wrong
    assert "background as real (ΔE₀₀ 0.0)" in perfect["virtual"].right
    assert any(words.startswith("where the real DAB is (r 1.00") for words in perfect["dab"].right)
    assert "100% of the real strength" in perfect["dab"].right
    assert any(words.startswith("the model adds to its hematoxylin (DAB r 1.00") for words in perfect["he"].right)
    read = result.metrics["real_readings"][name]
    said = " ".join(perfect["real"].right + perfect["real"].wrong)
    assert all(f"read as {text}" in said for text in read.values())
    unstained = overview.picture_words(result.metrics, "00000_test_0")
    assert "no pattern" in " ".join(unstained["dab"].right + unstained["dab"].wrong)


def test_large_pictures_are_kept_for_the_images_on_the_first_screen(result: Evaluation) -> None:
    for name in (case["name"] for case in result.metrics["cases"]):
        small, large = (result.folder / "figures" / f"{name}.real{ending}" for ending in (".jpg", ".large.jpg"))
        assert (read_image(small).shape[0], read_image(large).shape[0]) == (512, SIDE)
    text = result.report.read_text(encoding="utf-8")
    assert "virtual.large.jpg" in text
    assert text.index("virtual.large.jpg") < text.index("Is DAB where DAB is?") < text.index("<details")


@pytest.fixture
def page(result: Evaluation) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = write_page(
        result.folder / "two.html", "Two", [EvaluationSection("One", result), EvaluationSection("Two", result)]
    )
    faults: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.goto(path.as_uri())
        yield page
        browser.close()
    assert faults == []


def cut(page: Any, figure: Any) -> float:
    """Percent of a curtain's width at which the virtual stain ends."""
    clip = figure.locator(".over").evaluate("image => getComputedStyle(image).clipPath")
    return 100 - float(re.findall(r"[\d.]+", clip)[1])


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_the_curtain_follows_pointer_and_keys_and_shows_what_was_chosen(page: Any) -> None:
    figure = page.locator("#part-2 .case:visible figure.virtual").first
    curtain = figure.locator(".curtain > input")
    curtain.scroll_into_view_if_needed()
    box = curtain.bounding_box()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    assert cut(page, figure) == pytest.approx(25, abs=3)
    curtain.focus()
    before = cut(page, figure)
    page.keyboard.press("ArrowRight")
    assert cut(page, figure) == pytest.approx(before + 1, abs=0.1)
    under = figure.locator(".under:visible")
    assert "real" in under.get_attribute("src")
    figure.locator(".choose input[value=he]").check()
    assert ".he." in under.get_attribute("src")
    figure.locator(".choose .large input").check()
    assert curtain.bounding_box()["width"] > 2 * box["width"]
    # Another curtain stays where it was.
    assert cut(page, page.locator("#part-1 .case:visible figure.virtual").first) == pytest.approx(70, abs=0.1)


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_images_are_leafed_through_by_keys_and_nothing_overflows(page: Any, result: Evaluation) -> None:
    shown = page.locator("#part-1 .case:visible figure img")
    assert overview.opening(result.metrics["cases"]).removesuffix("+") in shown.first.get_attribute("src")
    page.locator("#part-1 .pick input:checked").focus()
    page.keyboard.press("ArrowRight")
    order = [case["name"] for case in result.metrics["cases"]]
    after = order[(order.index(overview.opening(result.metrics["cases"])) + 1) % len(order)]
    assert after.removesuffix("+") in shown.first.get_attribute("src")
    assert page.locator("#part-1 .case:visible").count() == 1
    for width, height in ((390, 844), (1024, 768), (1440, 900)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    for summary in page.locator("#part-1 summary").all():
        summary.click()
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_without_script_the_curtains_are_plain_pictures(result: Evaluation) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto(result.report.as_uri())
        assert page.locator(".case:visible .over:visible").count() == 2
        assert page.locator(".curtain > input:visible, .under:visible, .handle:visible").count() == 0
        browser.close()

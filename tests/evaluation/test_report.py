from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

import restain
from restain.data import open_pairs
from restain.evaluation import (
    Evaluation,
    EvaluationSection,
    evaluate,
    load_evaluation,
    render_report,
    write_page,
)
from restain.images import write_png
from restain.prediction import Prediction


class Page(HTMLParser):
    """Links and pictures of a page, its visible text, and the tags that were opened and closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


class Named:
    label = "<script>alert('x')</script> & co"

    def predict(self, he: np.ndarray) -> Prediction:
        return Prediction(he)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("00000_<b>&#1_test_2+", "00001_test_0"):
        for stain in ("HE", "IHC"):
            (root / stain / "test").mkdir(parents=True, exist_ok=True)
            coarse = rng.integers(60, 250, (6, 6, 3), dtype=np.uint8)
            write_png(root / stain / "test" / f"{name}.png", np.kron(coarse, np.ones((16, 16, 1), np.uint8)))
    out = tmp_path_factory.mktemp("out")
    return evaluate(
        Named(), open_pairs(root), "test", out, mpp=1.0, features=None, command="restain evaluate --data 'a & b'"
    )


def test_the_notice_leads_and_stands_by_every_virtual_picture(summary: Evaluation) -> None:
    text = summary.report.read_text(encoding="utf-8")
    assert f"{restain.NOTICE} — not a diagnosis" in text
    virtual = re.findall(r'<figure class="virtual">.*?</figure>', text, re.S)
    assert len(virtual) == len(re.findall(r'src="[^"]*virtual(?:\.large)?\.jpg"', text)) > 0
    assert all(restain.NOTICE in figure for figure in virtual)


def test_names_and_labels_are_escaped(summary: Evaluation) -> None:
    text = summary.report.read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "alert" not in re.findall(r"<script>(.*?)</script>", text, re.S)[0]
    assert "&lt;script&gt;" in text
    assert "<b>&#1" not in text
    assert "00000_<b>&#1_test_2+" in page.text
    assert "restain evaluate --data 'a & b'" in page.text


def test_every_picture_exists_beside_the_page_and_nothing_comes_from_elsewhere(
    summary: Evaluation,
) -> None:
    page = Page(summary.report.read_text(encoding="utf-8"))
    assert len(page.links) > 10
    for link in page.links:
        assert "://" not in link
        assert (summary.out / unquote(link)).is_file(), link


def test_the_report_says_in_words_what_beats_the_model(summary: Evaluation) -> None:
    text = Page(summary.report.read_text(encoding="utf-8")).text
    assert summary.metrics["comparison"]["psnr"]["oracle_flat"]["beats_model"]
    assert "beats this model here in PSNR (better on 2 of 2 images)" in text
    assert re.search(r"PSNR – beaten by .*flat colour \(oracle\): [\d.]+ against [\d.]+ dB, better on 2 of 2", text)


def test_a_model_that_nothing_beats_is_not_called_beaten(summary: Evaluation, tmp_path: Path) -> None:
    pairs = open_pairs(Path(summary.metrics["data"].split(" in ")[1].split(":")[0]))
    truth = iter([pair.load()[1] for pair in pairs.split("test")])

    class Perfect:
        label = "nearly perfect"

        def predict(self, he: np.ndarray) -> Prediction:
            return Prediction(np.clip(next(truth).astype(int) + 1, 0, 255).astype(np.uint8))

    text = Page(
        evaluate(Perfect(), pairs, "test", tmp_path, mpp=1.0, features=None).report.read_text(encoding="utf-8")
    ).text
    assert "PSNR – no baseline is better" in text
    assert "Here it does not beat this model in either." in text
    assert "The goal of 0.8 is reached" in text


def test_the_win_table_follows_from_the_run(summary: Evaluation) -> None:
    text = Page(summary.report.read_text(encoding="utf-8")).text
    part = text.split("Which figures a flat colour or a blur can win")[1].split("What the words mean")[0]
    assert re.search(r"PSNR\s*wins flat colour \(oracle\): [\d.]+ against [\d.]+, better on 2 of 2", part)
    lines = summary.metrics["win_table"]
    verdicts = [line[side]["verdict"] for line in lines for side in ("flat", "blur") if line[side]]
    shown = part.split("holds 0.")[1]
    assert shown.count("wins ") == verdicts.count("wins") > 0
    assert shown.count("draws ") == verdicts.count("draws")


def test_pages_of_other_commands_are_linked_where_they_are(summary: Evaluation, tmp_path: Path) -> None:
    assert "uncertainty.html" not in summary.report.read_text(encoding="utf-8")
    (summary.out / "uncertainty.html").write_text("uncertainty")
    try:
        page = Page(write_page(tmp_path / "a.html", "x", [EvaluationSection("", summary)]).read_text(encoding="utf-8"))
    finally:
        (summary.out / "uncertainty.html").unlink()
    assert any(link.endswith("uncertainty.html") for link in page.links)


def test_an_evaluation_of_an_older_restain_can_still_be_shown(summary: Evaluation, tmp_path: Path) -> None:
    """Those had fewer figures, no alignment and no win table."""
    old = json.loads(json.dumps(summary.metrics))
    for key in ("win_table", "reading", "distribution", "extractors"):
        del old[key]
    kept = {"dab_r16_pooled", *("dab_r16", "dab_mean_virtual", "dab_mean_real", "dab_mean_error", "mae")}
    kept |= {"background_de", "background_db", "psnr", "ssim"}
    for table in (old["overall"], *old["levels"].values()):
        for method in table:
            table[method] = {key: value for key, value in table[method].items() if key in kept}
    for row in old["per_image"]:
        for key in set(row) - kept - {"name", "level", "method"}:
            del row[key]
    for key in ("positive_od", "weak_od", "wide_cell_um", "membrane_rays", "membrane_od", "align_largest_um"):
        del old["definitions"][key]
    page = write_page(tmp_path / "old.html", "old", [EvaluationSection("", Evaluation(summary.out, old))])
    assert "PSNR" in page.read_text(encoding="utf-8")


def test_a_stored_evaluation_gives_the_same_page(summary: Evaluation) -> None:
    written = summary.report.read_text(encoding="utf-8")
    assert render_report(load_evaluation(summary.out)).read_text(encoding="utf-8") == written


def test_a_page_of_several_evaluations(summary: Evaluation, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    sections = [EvaluationSection("First part", summary, "A note."), EvaluationSection("Second <3", summary)]
    page = Page(write_page(folder / "index.html", "Both <parts>", sections).read_text(encoding="utf-8"))
    for text in ("Both <parts>", "First part", "A note.", "Second <3"):
        assert text in page.text
    assert page.links[:2] == ["#part-1", "#part-2"]
    for link in page.links[2:]:
        assert (folder / unquote(link)).is_file(), link

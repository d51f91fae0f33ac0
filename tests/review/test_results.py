from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from datetime import timedelta
from html import unescape
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from restain.cli import app
from restain.errors import RestainError
from restain.review import Modality, Reading, create_study, parse_definition, read_definition
from restain.review.analysis import analyse, consensus_of_others
from restain.review.definition import CHOICES, Kind
from restain.review.export import export_scores
from restain.review.mrmc import MISSING
from restain.review.results import write_results

from .conftest import START, write_study

LEVELS = CHOICES[Kind.HER2]


def readings(cases: int, readers: int, virtual_noise: float, seed: int = 0, levels: bool = True, **given):
    """A definition, and readings of it by readers who move the true level by one with chance 0.2, or the given one."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, cases)
    images = [
        {"path": f"{case}{one.value}", "case": f"c{case}", "modality": one.value}
        | ({"level": LEVELS[truth[case]]} if levels else {})
        for case in range(cases)
        for one in Modality
    ]
    names = [f"r{reader}" for reader in range(readers)]
    study = {"title": "t", "images": images, "questions": ["her2", "modality", "quality"], "readers": names} | given
    done = []
    for name in names:
        for case in range(cases):
            for one in Modality:
                noise = virtual_noise if one is Modality.VIRTUAL else 0.2
                level = int(np.clip(truth[case] + (rng.choice([-1, 1]) if rng.random() < noise else 0), 0, 3))
                answers = {"her2": LEVELS[level], "modality": rng.choice(["chemical", "virtual"])}
                answers["quality"] = "4" if one is Modality.CHEMICAL else "3"
                for repeat in (False, True)[: 1 + (case % 3 == 0)]:
                    done.append(Reading(name, f"c{case}", one, 0, repeat, answers, START, True))
    return parse_definition(study, "s"), done


def test_as_good_a_stain_is_non_inferior_and_a_bad_one_is_not():
    good = analyse(*readings(80, 5, 0.2, margin=0.15))
    assert good.non_inferiority.shown
    assert "is non-inferior at the stated margin of 0.15" in good.non_inferiority.sentence
    assert good.reference == "the true level"
    bad = analyse(*readings(80, 5, 0.95, margin=0.15))
    assert bad.non_inferiority.shown is False
    assert bad.figure("difference").high < 0
    assert bad.figure("truth_virtual").mean < bad.figure("truth_chemical").mean
    assert bad.figure("between_virtual").mean < bad.figure("between_chemical").mean


def test_figures_are_what_was_put_in():
    found = analyse(*readings(60, 4, 0.2))
    assert found.figure("within").mean == 1  # repeats were answered alike
    assert found.figure("within").n == 4 * 40
    assert found.figure("quality_difference").mean == -1
    assert (found.figure("quality_chemical").mean, found.figure("quality_virtual").mean) == (4, 3)
    guess = found.figure("discrimination")
    assert guess.low < 0.5 < guess.high
    assert guess.p > 0.01
    assert (guess.n, guess.readers, guess.cases) == (4 * 120, 4, 60)
    for one in found.figures:
        assert one.low <= one.mean <= one.high, one.key
    assert found.readers[0].accuracy.n == 120


def test_without_true_levels_the_reference_is_what_the_others_said():
    found = analyse(*readings(60, 4, 0.2, levels=False))
    assert found.reference == "the other readers' median chemical reading"
    assert found.figure("difference").mean is not None
    assert {one.key for one in found.figures}.isdisjoint({"truth_chemical", "truth_virtual"})
    levels = np.array([[0, 3, MISSING], [1, 3, 2], [2, MISSING, MISSING]])
    assert consensus_of_others(levels).tolist() == [[2, 3, 2], [1, 3, MISSING], [1, 3, 2]]


def test_too_few_readers_or_cases_give_words_not_figures():
    few_cases = analyse(*readings(9, 5, 0.2))
    assert all(one.mean is not None and one.low is None for one in few_cases.figures if one.key != "within")
    assert "too few cases: 9, 10 are needed" in few_cases.figure("between_chemical").reason
    assert few_cases.non_inferiority.shown is None
    two = analyse(*readings(30, 2, 0.2))
    assert two.figure("between_chemical").mean is not None
    assert "too few readers: 2, 3 are needed" in two.non_inferiority.sentence
    one = analyse(*readings(30, 1, 0.2))
    assert all("too few" in figure.reason for figure in one.figures)


def test_readings_that_are_not_complete_do_not_count():
    study, done = readings(30, 3, 0.2)
    cut = [one if number % 5 else replace(one, complete=False) for number, one in enumerate(done)]
    assert analyse(study, cut).figure("truth_chemical").n < analyse(study, done).figure("truth_chemical").n


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """A study of 12 cases that three readers read to its end."""
    folder = tmp_path_factory.mktemp("read")
    given = {"readers": ["anna", "bo", "chi"], "title": "Trial <1>", "questions": ["her2", "modality", "text"]}
    path = write_study(folder / "material", 12, repeats=0.1, **given)
    study = create_study(read_definition(path), folder / "study", now=START)
    for number, reader in enumerate(study.readers):
        for now in (START, START + timedelta(days=15)):
            count = 0
            while (item := study.next_item(reader, now)) is not None:
                count += 1
                study.record(reader, item.token, "text", "=1+1, <b>fine</b>", now)
                study.record(reader, item.token, "her2", LEVELS[(count + number) % 4], now)
                study.record(reader, item.token, "modality", ("chemical", "virtual")[count % 2], now)
    return SimpleNamespace(study=study, folder=folder / "study", out=folder / "results")


def test_the_page_and_its_files_say_the_same(read):
    page = write_results(read.study, read.out, now=START, command="restain review results")
    text = page.read_text(encoding="utf-8")
    whole = json.loads((read.out / "results.json").read_text(encoding="utf-8"))
    table = list(csv.DictReader((read.out / "results.csv").open(encoding="utf-8", newline="")))
    assert "Trial &lt;1&gt;" in text
    assert "<1>" not in text
    assert whole["non_inferiority"]["sentence"] in unescape(text)
    assert [row["key"] for row in table] == [one["key"] for one in whole["figures"]]
    for one, row in zip(whole["figures"], table, strict=True):
        assert one["title"] in unescape(text)
        if one["mean"] is None:
            assert row["mean"] == ""
            assert one["reason"] in text
        else:
            assert float(row["mean"]) == one["mean"]
            assert f"<b>{one['mean']:.3f}</b>" in text
    assert re.findall(r"<td>(\d+ of \d+)</td>", text) == ["26 of 26"] * 3
    assert "Interim results" not in text
    answers = list(csv.DictReader((read.out / "answers.csv").open(encoding="utf-8", newline="")))
    assert len(answers) == 3 * 26 * 3
    assert answers[0]["value"] == "'=1+1, <b>fine</b>"


def test_the_export_is_what_imrmc_reads(read, tmp_path):
    assert export_scores(read.study, tmp_path / "a.csv") == 0
    rows = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8", newline="")))
    assert list(rows[0]) == ["readerID", "caseID", "modalityID", "score"]
    truth = {row["caseID"]: row["score"] for row in rows if row["readerID"] == "-1"}
    assert truth == {f"P{case}": str(int(case % 4 == 3)) for case in range(12)}
    scores = [row for row in rows if row["readerID"] != "-1"]
    # One score of each reader, case and modality: repeats would be an error there.
    assert len({(row["readerID"], row["caseID"], row["modalityID"]) for row in scores}) == len(scores) == 72
    assert {row["score"] for row in scores} == {"0", "1", "2", "3"}
    export_scores(read.study, tmp_path / "a.imrmc", "modality")
    lines = (tmp_path / "a.imrmc").read_text(encoding="utf-8").splitlines()
    assert lines[:6] == ["Trial <1>", "N0: 9", "N1: 3", "NR: 3", "NM: 2", "BEGIN DATA:"]
    assert len(lines) == 6 + 12 + 72
    assert all(line.count(",") == 3 and '"' not in line for line in lines[6:])
    with pytest.raises(RestainError, match="no score"):
        export_scores(read.study, tmp_path / "b.csv", "text")


def test_the_commands(read, tmp_path, study_file):
    runner = CliRunner()

    def call(*arguments):
        return runner.invoke(app, ["review", *map(str, arguments)])

    made = call("create", study_file(12), "-o", tmp_path / "new")
    assert made.exit_code == 0, made.output
    assert "2 readers, 24 images to read for each" in made.output
    early = call("results", tmp_path / "new", "-o", tmp_path / "none")
    assert isinstance(early.exception, RestainError)
    assert not (tmp_path / "none").exists()
    assert isinstance(call("create", study_file(12), "-o", tmp_path / "new").exception, RestainError)
    assert call("results", read.folder, "-o", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "results.html").is_file()
    assert call("export", read.folder, "-o", tmp_path / "x.csv").exit_code == 0
    assert (tmp_path / "x.csv").is_file()


def test_null_against_ultralow_is_a_question_of_its_own():
    study, done = readings(20, 3, 0.2, questions=["her2", "her2_zero"])
    done = [
        replace(one, answers={"her2": one.answers["her2"], "her2_zero": ("null", "ultralow", "above")[number // 6 % 3]})
        for number, one in enumerate(done)
    ]
    found = analyse(study, done)
    keys = {one.key for one in found.figures}
    assert {"zero_between_chemical", "zero_between_virtual", "zero_own_chemical"} <= keys
    assert -1 <= found.figure("zero_between_virtual").mean <= 1

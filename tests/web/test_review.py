"""The review's routes over HTTP: who may read what, what an answer is, and that nothing tells where an image comes from."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from restain import NOTICE
from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.images import write_png
from restain.review import Kind, Study, create_study, read_definition
from restain.review.definition import CHOICES
from restain.slides import open_slide
from restain.web.review import Studies, StudyTiles
from restain.web.review.pages import CHOICE_TEXTS, QUESTION_TEXTS
from restain.web.review.tiles import _crop

from ..samples import tissue_picture, write_slide
from .review_study import MODALITIES, Reader, ReviewServer, make_study

GOOD = {"her2": "2+", "modality": "virtual", "quality": "4"}


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    return make_study(tmp_path)


@pytest.fixture
def served(trial: Path, tmp_path: Path) -> Iterator[ReviewServer]:
    running = ReviewServer(tmp_path, [trial])
    yield running
    running.stop()


def read_all(reader: Reader, look: bool = False) -> list[str]:
    """Answers until nothing is left; the tokens in order."""
    seen = []
    while (item := reader.next())["state"] == "item":
        seen.append(item["token"])
        if look:
            reader.tile(item["token"])
        for question, value in GOOD.items():
            assert reader.answer(item["token"], question, value).status_code == 200
    return seen


def modalities(trial: Path, reader: str, tokens: list[str]) -> dict[str, str]:
    """For the test alone: which token is of which modality."""
    with Study.open(trial) as study:
        names = {token: study.view(reader, token)[0].name for token in tokens}
    return {token: next(m for m, word in MODALITIES.items() if name.startswith(word)) for token, name in names.items()}


def test_a_reader_reads_a_study_to_its_end(served, trial):
    anna = served.reader("anna")
    tokens = read_all(anna)
    assert len(set(tokens)) == 6
    end = anna.next()
    assert (end["state"], end["done"], end["total"]) == ("finished", 6, 6)
    with Study.open(trial) as study:
        answers = study.answers()
    assert {(one.reader, one.question, one.value) for one in answers} == {("anna", *pair) for pair in GOOD.items()}
    assert len(answers) == 18
    assert all(one.seconds == 1.5 for one in answers)


def test_the_same_answer_sent_again_is_kept_once_and_a_late_one_is_refused(served, trial):
    anna = served.reader("anna")
    token = anna.next()["token"]
    for _ in range(3):
        assert anna.answer(token, "her2", "1+").json() == {"answers": {"her2": "1+"}}
    assert anna.answer(token, "her2", "3+", replaces=[None, "1+"]).status_code == 200
    late = anna.answer(token, "her2", "2+", replaces=["1+"])
    assert late.status_code == 409
    assert "another window" in late.json()["error"]
    assert anna.open(token).json()["answers"] == {"her2": "3+"}
    with Study.open(trial) as study:
        assert [one.value for one in study.answers()] == ["1+", "3+"]


def test_what_is_no_answer_is_refused_and_nothing_is_kept(served, trial):
    anna = served.reader("anna")
    token = anna.next()["token"]
    assert anna.answer(token, "her2", "4+").status_code == 400
    assert anna.answer(token, "mood", "1").status_code == 400
    assert anna.answer(token, "remarks", "x" * 4001).status_code == 400
    for body in (b"{", b"[]", b'{"value": 3, "replaces": [null], "seconds": 1}', b"[" * 9000):
        assert anna.put(token, "her2", body).status_code == 400
    for text in (b"\\ud800", b"\\u0000"):
        body = b'{"value": "%b", "replaces": [null], "seconds": 1}' % text
        assert anna.put(token, "remarks", body).status_code == 400
    for bad in ({"replaces": "1+"}, {"replaces": [1]}, {"seconds": -1}, {"seconds": "1"}, {"seconds": float("nan")}):
        assert anna.answer(token, "her2", "1+", **bad).status_code == 400
    assert anna.post("next", {"without": "everything"}).status_code == 400
    with Study.open(trial) as study:
        assert study.answers() == []


def test_another_readers_token_and_what_is_none_are_not_there(served):
    anna, bo = served.reader("anna"), served.reader("bo")
    token = anna.next()["token"]
    bo.next()
    assert anna.tile(token).status_code == 200
    for strange in (token, "nothing", "..", "%2e%2e%2fstudy.sqlite"):
        assert bo.tile(strange).status_code == 404
        assert bo.open(strange).status_code in (404, 405)
        assert bo.answer(strange, "her2", "1+").status_code in (404, 405)
    # Anna's own that she was not shown yet are none either; the page knows none of them.
    assert anna.next()["trail"] == [token]


@pytest.mark.parametrize("path", ["/review/{}", "/api/review/{}/next"])
def test_a_study_is_open_to_its_readers_alone(served, path):
    own, other = path.format(served.study), path.format("0" * 20)
    for name, address in (("cleo", own), ("anna", other), ("cleo", other)):
        reader = served.reader(name)
        answer = reader.get(address) if path.startswith("/review") else reader.send("POST", address, {})
        assert answer.status_code == 404
        assert "not one of its readers" in answer.text
    # An owner has the library beside it.
    owner = served.reader("olga")
    answer = owner.get(own) if path.startswith("/review") else owner.send("POST", own, {})
    assert answer.status_code == 403
    assert "not blinded" in answer.text


def test_a_reader_sees_their_own_studies_and_an_owner_how_far_everybody_is(served, trial):
    anna, cleo, owner = served.reader("anna"), served.reader("cleo"), served.reader("olga")
    assert f'href="review/{served.study}"' in anna.get("/review").text
    assert "bo" not in re.findall(r"\w+", re.sub(r"<[^>]*>", " ", anna.get("/review").text))
    assert "No studies for you" in cleo.get("/review").text
    read_all(anna)
    served.reader("bo").next()
    assert "you have scored all images" in anna.get("/review").text
    page = owner.get("/review").text
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "anna 6 of 6 Finished bo 0 of 6 Not started" in text
    assert f"restain review results {trial} -o results" in text
    assert re.search(r"restain accounts add \S+ NAME --role reader", text)
    # What was answered would tell an owner who is beside a reader which image is which.
    assert "2+" not in text


@pytest.mark.slow
def test_a_reader_waits_for_the_second_part_and_is_told_until_when(tmp_path):
    trial = make_study(tmp_path, washout_days=14)
    served = ReviewServer(tmp_path, [trial])
    try:
        anna = served.reader("anna")
        assert len(read_all(anna)) == 3
        waiting = anna.next()
        assert waiting["state"] == "waiting"
        with Study.open(trial) as study:
            assert waiting["opens"] == study.progress("anna").next_at.isoformat(timespec="seconds")
        for page in ("/review", f"/review/{served.study}"):
            assert f'datetime="{waiting["opens"]}"' in anna.get(page).text
        assert 'id="begin"' not in anna.get(f"/review/{served.study}").text
    finally:
        served.stop()


def test_an_item_is_closed_once_the_case_is_seen_in_the_other_modality(served, trial):
    anna = served.reader("anna")
    tokens = read_all(anna)
    with Study.open(trial) as study:
        closed = [token for token in tokens if token not in study.offered("anna")]
    assert len(closed) == 3
    for answer in (anna.open(closed[0]), anna.answer(closed[0], "her2", "0"), anna.tile(closed[0])):
        assert answer.status_code == 410
        assert "closed" in answer.json()["error"]
    assert "已关闭" in anna.open(closed[0], language="zh").json()["error"]
    # Of the second part everything can still be changed.
    assert anna.answer(tokens[-1], "her2", "0", replaces=["2+"]).status_code == 200


def test_nothing_that_is_sent_tells_where_an_image_comes_from(served, trial):
    anna = served.reader("anna")
    for page in ("/review", f"/review/{served.study}", "/static/review.js"):
        assert anna.get(page).status_code == 200
    tokens = read_all(anna, look=True)
    anna.tile(tokens[0])
    anna.tile("nothing")
    assert len(anna.heard) > 30
    secrets = [*MODALITIES.values(), "pankow", "weissensee", "treptow", ".png", str(trial.parent), "sqlite"]
    for heard in anna.heard:
        told = "\n".join(f"{name}: {value}" for name, value in heard.headers.items()).encode() + heard.content
        for secret in secrets:
            # The icon of the pages and the styles are files of the server's own.
            assert secret.encode() not in told, (secret, heard.url)


def test_a_chemical_and_a_virtual_image_are_answered_alike(served, trial):
    anna = served.reader("anna")
    shown: dict[str, list[tuple[Any, ...]]] = {"chemical": [], "virtual": []}
    items = []
    while (item := anna.next())["state"] == "item":
        tile = anna.tile(item["token"])
        picture = Image.open(io.BytesIO(tile.content))
        tables = {number: list(table) for number, table in picture.quantization.items()}
        facts = picture.size, picture.mode, sorted(picture.info), tables, picture.layer
        headers = {k: v for k, v in tile.headers.items() if k not in ("content-length", "date")}
        small = anna.tile(item["token"], "0/0/0").headers["content-type"]
        items.append((item["token"], (sorted(item), headers, facts, small, len(item["token"]))))
        for question, value in GOOD.items():
            anna.answer(item["token"], question, value)
    with Study.open(trial) as study:
        order = [one.modality for one in study.readings() if one.reader == "anna"]
    for (_, facts), modality in zip(items, order, strict=True):
        shown[modality.value].append(facts)
    assert len(shown["chemical"]) == len(shown["virtual"]) == 3
    first = shown["chemical"][0]
    assert first[1]["cache-control"] == "no-store"
    assert not {"etag", "last-modified", "content-disposition", "server-timing"} & first[1].keys()
    assert not {"comment", "exif", "icc_profile"} & set(first[2][2])
    assert all(facts == first for facts in [*shown["chemical"], *shown["virtual"]])


def test_the_scale_is_shown_only_where_all_images_have_the_same(tmp_path):
    folder = tmp_path / "mixed"
    trial = make_study(folder)
    studies = Studies([trial])
    assert studies.common_mpp(studies.all()[0]) == pytest.approx(0.5, rel=1e-3)
    studies.close()
    with Study.open(trial) as study:
        path = next(one for one in study.paths if one.name.startswith(MODALITIES["virtual"]))
    with Image.open(path) as picture:
        write_png(path, np.asarray(picture.convert("RGB")), mpp=0.25)
    studies = Studies([trial])
    assert studies.common_mpp(studies.all()[0]) is None
    studies.close()


def test_tiles_are_the_middle_of_the_file_at_every_level(tmp_path):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (20, 24, 3)).astype(np.uint8)
    whole = np.asarray(Image.fromarray(coarse).resize((1400, 1100), Image.Resampling.BICUBIC))
    write_slide(tmp_path / "a.ome.tiff", whole, {}, mpp=0.25)
    write_png(tmp_path / "b.png", whole[:1000, :1200])
    images = [
        {"path": "a.ome.tiff", "case": "1", "modality": "chemical"},
        {"path": "b.png", "case": "1", "modality": "virtual"},
    ]
    (tmp_path / "s.yaml").write_text(
        f"{{title: t, questions: [her2], readers: [anna], washout_days: 0, images: {images}}}"
    )
    pictures = StudyTiles()
    with create_study(read_definition(tmp_path / "s.yaml"), tmp_path / "study") as study:
        assert study.size == Size(1200, 1000)
        for _ in range(2):
            item = study.next_item("anna")
            left, top = (100, 50) if study.view("anna", item.token)[0].name == "a.ome.tiff" else (0, 0)
            middle = whole[top : top + 1000, left : left + 1200].astype(float)
            tile = np.asarray(Image.open(io.BytesIO(pictures.tile(study, "anna", item.token, 2, 2, 1)))).astype(float)
            assert tile.shape == (488, 176, 3)
            assert np.abs(tile - middle[512:1000, 1024:1200]).mean() < 4
            small = np.asarray(Image.open(io.BytesIO(pictures.tile(study, "anna", item.token, 0, 0, 0)))).astype(float)
            assert small.shape == (250, 300, 3)
            assert np.abs(small - middle.reshape(250, 4, 300, 4, 3).mean(axis=(1, 3))).mean() < 5
            study.record("anna", item.token, "her2", "0")
    pictures.close()


def test_sides_that_are_rounded_up_are_filled_from_the_edge(tmp_path):
    write_png(tmp_path / "a.png", np.full((101, 101, 3), 90, np.uint8))
    with open_slide(tmp_path / "a.png") as slide:
        assert (_crop(slide, Point(0, 0), Region(Point(0, 0), Size(26, 26)), 4) == 90).all()
        assert (_crop(slide, Point(1, 1), Region(Point(0, 0), Size(26, 26)), 4) == 90).all()


@pytest.mark.parametrize("what", ["gone", "damaged", "exchanged", "huge"])
def test_an_image_that_cannot_be_shown_is_told_without_its_name_and_can_be_passed_over(
    served, trial, what, caplog, monkeypatch
):
    anna = served.reader("anna")
    token = anna.next()["token"]
    with Study.open(trial) as study:
        path, _ = study.view("anna", token)
    if what == "gone":
        path.unlink()
    elif what == "damaged":
        path.write_bytes(path.read_bytes()[:2000])
    elif what == "exchanged":
        write_png(path, np.zeros((900, 900, 3), np.uint8))
    else:
        monkeypatch.setattr("restain.web.tiles.MAX_PX", 1000)
    for _ in range(2):
        refused = anna.tile(token)
        assert refused.status_code == 422
        assert refused.json() == {"error": "This image cannot be shown."}
    # Whoever serves the study reads which one it is, once.
    assert [path.name in record.getMessage() for record in caplog.records] == [True]
    other = anna.post("next", {"without": [token]}).json()
    assert other["token"] != token
    assert anna.next()["token"] == token
    for question, value in GOOD.items():
        anna.answer(other["token"], question, value)
    third = anna.post("next", {"without": [token]}).json()
    for question, value in GOOD.items():
        anna.answer(third["token"], question, value)
    blocked = anna.post("next", {"without": [token]}).json()
    assert (blocked["state"], blocked["done"]) == ("blocked", 2)


@pytest.mark.slow
def test_built_in_questions_are_asked_in_the_readers_language_and_own_words_as_they_are(tmp_path):
    own = [{"kind": "her2", "words": "Grade it, please"}, "modality", "quality", {"kind": "text", "name": "remarks"}]
    trial = make_study(tmp_path, questions=own)
    served = ReviewServer(tmp_path, [trial])
    try:
        page = served.reader("anna").get(f"/review/{served.study}", language="zh").text
        assert "Grade it, please" in page
        assert all(words in page for words in ("化学 IHC 还是虚拟染色？", "染色质量", "备注", "虚拟</span>"))
    finally:
        served.stop()
    assert len(QUESTION_TEXTS) == 5
    assert set(CHOICE_TEXTS) == {*CHOICES[Kind.MODALITY], *CHOICES[Kind.HER2_ZERO]}


@pytest.mark.slow
def test_hostile_words_of_a_study_stay_words(tmp_path):
    hostile = "</script><script>alert(1)</script>"
    trial = make_study(tmp_path, title=hostile, questions=[{"kind": "her2", "words": hostile}])
    served = ReviewServer(tmp_path, [trial])
    try:
        for page in (f"/review/{served.study}", "/review"):
            assert "<script>alert" not in served.reader("anna").get(page).text
    finally:
        served.stop()


def test_a_folder_without_a_study_and_one_given_twice_are_refused(trial, tmp_path):
    with pytest.raises(RestainError, match="holds no study"):
        Studies([tmp_path])
    with pytest.raises(RestainError, match="give one of them"):
        Studies([trial, trial])


def test_a_study_has_the_same_address_wherever_its_folder_lies(trial, tmp_path):
    with Study.open(trial) as study:
        here = study.id
    moved = trial.rename(tmp_path / "elsewhere")
    with Study.open(moved) as study:
        assert study.id == here
        assert not any(token in here for token in study.offered("anna"))


def test_a_store_that_does_not_answer_is_told_without_its_place(served, trial, monkeypatch, caplog):
    anna = served.reader("anna")
    token = anna.next()["token"]

    def full(*_: object, **__: object) -> None:
        raise RestainError(f"{trial}/study.sqlite cannot be written (disk full).")

    monkeypatch.setattr(Study, "record", full)
    refused = anna.answer(token, "her2", "1+")
    assert (refused.status_code, "sqlite" in refused.text) == (503, False)
    assert "disk full" in caplog.text


@pytest.mark.slow
def test_an_owner_makes_a_study_of_the_library_adds_a_reader_and_sees_results(tmp_path):
    slides = tmp_path / "slides"
    for number in range(2):
        for stain, seed in (("HE", 0), ("IHC", 40)):
            rgb = tissue_picture(320, 320, number + seed, low=(60 + seed, 60, 60), high=(220, 200, 220))
            folder = slides / stain / "train"
            folder.mkdir(parents=True, exist_ok=True)
            write_png(
                folder / f"p{number}_train_{number}+.png".replace("0+", "0"), rgb, {"restain build": f"{number}"}, 0.5
            )
        name = f"p{number}_train_{number}+.png".replace("0+", "0")
        made = {"notice": NOTICE, "source": name, "bundle_hash": "0"}
        (slides / "virtual").mkdir(exist_ok=True)
        write_png(
            slides / "virtual" / name,
            tissue_picture(330, 330, number, low=(90, 50, 20), high=(220, 190, 170)),
            made,
            0.46,
        )
    trial = make_study(tmp_path)
    served = ReviewServer(tmp_path, [trial])
    try:
        owner = served.reader("olga")
        form = owner.get("/study/new").text
        cases = re.findall(r'name="(case-\w+)"', form)
        assert len(cases) == 2
        token = re.search(r'name="csrf" value="(\w+)"', form)[1]
        given = dict.fromkeys(cases, "1") | {
            "csrf": token,
            "title": "New",
            "readers": "anna",
            "washout": "0",
            "repeats": "0",
        }
        given |= {"ask-her2": "1", "ask-modality": "1"}
        refused = owner.send("POST", "/study/new", data=given | {"csrf": "x"})
        assert refused.status_code == 403
        # The fixture's virtual images have another mpp, which can reveal them.
        warned = owner.send("POST", "/study/new", data=given)
        assert "can reveal their modality" in warned.text
        assert "0.46 to 0.5" in warned.text
        created = owner.send("POST", "/study/new", data=given | {"confirmed": "1"})
        assert created.status_code == 303
        address = created.headers["location"]
        assert "No reading is complete yet" in owner.get(address).text
        assert owner.send("POST", f"{address}/readers", data={"csrf": token, "reader": "bo"}).status_code == 303
        again = owner.send("POST", f"{address}/readers", data={"csrf": token, "reader": "bo"})
        assert again.status_code == 400
        for name in ("anna", "bo"):
            reader = served.reader(name)
            served.study = address.rsplit("/", 1)[1]
            assert f"review/{served.study}" in reader.get("/review").text
            assert reader.get(address).status_code == 403
            while (item := reader.next())["state"] == "item":
                for question, value in (("her2", "2+"), ("modality", "virtual")):
                    assert reader.answer(item["token"], question, value).status_code == 200
        page = " ".join(re.sub(r"<[^>]*>", " ", owner.get(address).text).split())
        assert "No interval: 2 cases, 10 are needed." in page
        assert "Non-inferiority was not tested. No interval: 2 readers, 3 are needed." in page
        assert "0.500" in page  # always one answer: half of the origins
        assert "HER2 IHC score: chemical (rows), virtual (columns) 0 1+ 2+ 3+ 0 0 0 0 0 1+ 0 0 0 0 2+ 0 0 4 0" in page
        chinese = re.sub(r"<[^>]*>", " ", owner.get(f"{address}?lang=zh").text)
        results = chinese[chinese.index("结果") :]
        # Only the version, names and file names are not Chinese.
        assert not re.search(r"[a-z]{3,} [a-z]{2,}", results.replace("restain", ""))
        assert "阅片者间一致性" in results
    finally:
        served.stop()

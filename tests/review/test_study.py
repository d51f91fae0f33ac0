from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sql
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from restain.errors import RestainError
from restain.geometry import Size
from restain.review import Study, create_study, read_definition
from restain.review import tables as db

from .conftest import START

GOOD = {"her2": "2+", "modality": "virtual", "quality": "4"}


def answer_all(study: Study, reader: str, now: datetime) -> list[str]:
    """Read until nothing is offered; the tokens in order."""
    seen = []
    while (item := study.next_item(reader, now)) is not None:
        for question, value in GOOD.items():
            study.record(reader, item.token, question, value, now)
        seen.append(item.token)
    return seen


@pytest.fixture
def made(tmp_path, study_file):
    def make(cases=4, **given):
        return create_study(read_definition(study_file(cases, **given)), tmp_path / "study", now=START)

    return make


def test_a_study_is_read_to_its_end_across_the_washout(made, tmp_path):
    study = made(cases=5, repeats=0.4, washout_days=14)
    first = answer_all(study, "anna", START)
    halfway = study.progress("anna", START)
    assert (halfway.done, halfway.total, halfway.next_at) == (len(first), 14, START + timedelta(days=14))
    assert not halfway.finished
    assert answer_all(study, "anna", START + timedelta(days=13, hours=23)) == []
    study.close()
    # On another machine, all that is known is the folder.
    with Study.open(tmp_path / "study") as again:
        second = answer_all(again, "anna", START + timedelta(days=14))
        assert len({*first, *second}) == 14
        assert again.progress("anna", START + timedelta(days=14)).finished
        assert again.progress("bo", START).done == 0
        assert sum(reading.complete for reading in again.readings()) == 14


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    steps=st.lists(
        st.tuples(st.integers(-3, 9), st.sampled_from(["next", "answer", "again"])), min_size=20, max_size=40
    )
)
def test_the_washout_is_never_violated(tmp_path_factory, study_file, steps):
    """Whatever a reader does, and though a clock that goes back is taken for standing: a case's two modalities are seen and answered a washout apart."""
    definition = read_definition(study_file(2, readers=["anna"], questions=["her2"], washout_days=5, repeats=0.25))
    study = create_study(definition, tmp_path_factory.mktemp("washout"), now=START)
    with study, study._database.read() as connection:
        case = dict(
            connection.execute(
                sql.select(db.ITEMS.c.token, db.IMAGES.c.case_id + ":" + db.IMAGES.c.modality).join(db.IMAGES)
            ).all()
        )
    now, clock, events, tokens = START, START, [], []
    for days, what in steps:
        now += timedelta(days=days)
        try:
            if what == "next":
                item = study.next_item("anna", now)
                if item is None:
                    continue
                token = item.token
                tokens.append(token)
            elif tokens:
                token = tokens[days % len(tokens)] if what == "again" else tokens[-1]
                study.record("anna", token, "her2", "2+", now)
            else:
                continue
        except RestainError:
            continue
        clock = max(clock, now)
        events.append((*case[token].split(":"), clock))
    study.close()
    for one, modality, at in events:
        for other, opposite, then in events:
            if one == other and modality != opposite:
                assert abs(at - then) >= timedelta(days=5)


def test_what_a_page_gets_names_neither_file_nor_case_nor_modality(made):
    study = made(cases=4, repeats=0.25)
    tokens, images = [], []
    for reader in study.readers:
        for now in (START, START + timedelta(days=30)):
            while (item := study.next_item(reader, now)) is not None:
                # The token is random and may by chance hold "P1".
                told = json.dumps(asdict(item) | {"token": ""}, default=str)
                assert not re.search(r"chemical-|virtual-|\.png|P\d\b|secret|material", told)
                path, region = study.view(reader, item.token)
                assert region.size == study.size == Size(8, 8)
                images.append(path)
                tokens.append(item.token)
                for question, value in GOOD.items():
                    study.record(reader, item.token, question, value, now)
    assert len(set(tokens)) == len(tokens) == 20
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", token) for token in tokens)
    assert len(set(images)) == 8


def test_tokens_do_not_follow_from_the_seed(tmp_path, study_file):
    definition = read_definition(study_file())
    tokens = []
    for name in ("one", "two"):
        with create_study(definition, tmp_path / name, now=START) as study:
            item = study.next_item("anna", START)
            assert item is not None
            tokens.append(item.token)
    assert tokens[0] != tokens[1]


def test_a_reader_reaches_only_items_that_were_offered_to_them(made):
    study = made()
    item = study.next_item("anna", START)
    assert item is not None
    with study._database.read() as connection:
        hidden = connection.execute(sql.select(db.ITEMS.c.token).where(db.ITEMS.c.offered.is_(None))).scalars().first()
    for reader, token in (("bo", item.token), ("anna", hidden), ("anna", "../../etc/passwd"), ("anna", "é")):
        for call in (
            lambda reader=reader, token=token: study.record(reader, token, "her2", "1+", START),
            lambda reader=reader, token=token: study.item(reader, token, START),
            lambda reader=reader, token=token: study.view(reader, token),
        ):
            with pytest.raises(RestainError, match="no such item"):
                call()
    with pytest.raises(RestainError, match="no reader 'eve'"):
        study.next_item("eve", START)
    assert study.answers() == []


def test_answers_that_were_changed_stay_with_time_and_duration(made):
    study = made()
    item = study.next_item("anna", START)
    assert item is not None
    study.record("anna", item.token, "her2", "1+", START + timedelta(seconds=9))
    study.record("anna", item.token, "her2", "3+", START + timedelta(seconds=12), seconds=2.5)
    study.record("anna", item.token, "remarks", "'); DROP TABLE answers;--", START + timedelta(seconds=20))
    assert [(one.value, one.seconds, (one.at - START).seconds) for one in study.answers()] == [
        ("1+", 9.0, 9),
        ("3+", 2.5, 12),
        ("'); DROP TABLE answers;--", 20.0, 20),
    ]
    again = study.next_item("anna", START + timedelta(days=1))
    assert again is not None
    assert again.token == item.token
    assert again.answers == {"her2": "3+", "remarks": "'); DROP TABLE answers;--"}
    with pytest.raises(RestainError, match="is no answer"):
        study.record("anna", item.token, "her2", "5", START)
    with pytest.raises(RestainError, match="has no question 'mood'"):
        study.record("anna", item.token, "mood", "5", START)
    with pytest.raises(ValueError, match="zone"):
        study.next_item("anna", datetime(2026, 1, 1))


def test_an_item_closes_when_the_case_is_seen_in_the_other_modality(made):
    study = made(cases=1)
    first = study.next_item("anna", START)
    assert first is not None
    answer_all(study, "anna", START)
    study.record("anna", first.token, "her2", "0", START + timedelta(days=3))
    # Seen again on day 3, so the washout of 14 days ends on day 17.
    assert study.next_item("anna", START + timedelta(days=16)) is None
    assert study.next_item("anna", START + timedelta(days=17)) is not None
    with pytest.raises(RestainError, match="closed"):
        study.record("anna", first.token, "her2", "1+", START + timedelta(days=40))


def test_what_could_unblind_readers_is_a_warning_when_the_study_is_created(tmp_path, study_file):
    definition = read_definition(study_file(2))
    images = []
    for image in definition.images:
        path = image.path
        if image.modality.value == "chemical":
            path = path.with_suffix(".jpg")
            Image.new("RGB", (40, 40)).save(path, dpi=(50800, 50800))
        else:
            Image.open(path).save(path, dpi=(101600, 101600))
        images.append(image.model_copy(update={"path": path}))
    told, steps = [], []
    definition = definition.model_copy(update={"images": tuple(images)})
    create_study(
        definition, tmp_path / "s", now=START, warn=told.append, progress=lambda *step: steps.append(step)
    ).close()
    assert steps[-1] == (4, 4)
    assert len(told) == 3
    assert "Chemical images are .jpg files, virtual ones .png" in told[0]
    assert "ranges from 0.25 to 0.5 µm per px" in told[1]
    assert "8 × 8 px" in told[2]


def test_folders_without_or_with_a_study(tmp_path, made, study_file):
    with pytest.raises(RestainError, match="holds no study"):
        Study.open(tmp_path / "study")
    made().close()
    with pytest.raises(RestainError, match="already holds a study"):
        create_study(read_definition(study_file()), tmp_path / "study")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / db.FILE).write_bytes(b"not a database, whatever its name says" * 99)
    with pytest.raises(RestainError, match="cannot be used as a store"):
        Study.open(tmp_path / "other")


def test_a_study_whose_making_was_cut_off_can_be_made_again(tmp_path, study_file):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / db.FILE).touch()
    with pytest.raises(RestainError, match="holds no study"):
        Study.open(tmp_path / "study")
    db.create_database(tmp_path / "study", None).close()
    with pytest.raises(RestainError, match="holds no study"):
        Study.open(tmp_path / "study")
    with create_study(read_definition(study_file()), tmp_path / "study") as study:
        assert study.next_item("anna", START) is not None


def test_the_store_is_durable_and_its_owner_s(made, tmp_path):
    study = made()
    with study._database.read() as connection:
        values = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert values == ["wal", 2, 1]
    assert (tmp_path / "study" / db.FILE).stat().st_mode & 0o077 == 0
    with pytest.raises(sql.exc.IntegrityError), study._database.write() as connection:
        connection.execute(db.ANSWERS.insert().values(item_id=999, question="her2", value="0", at=START))


def answer_without_end(folder: Path, told: int) -> None:
    with Study.open(folder) as study:
        item = study.next_item("anna", START)
        assert item is not None
        for number in range(len(study.answers()), 100_000):
            study.record("anna", item.token, "remarks", f"{number} " + "x" * 900, START)
            os.write(told, f"{number}\n".encode())


@pytest.mark.slow
def test_no_acknowledged_answer_is_lost_when_the_process_is_killed(made, tmp_path):
    made().close()
    moments = np.random.default_rng(3).uniform(0.005, 0.15, 8)
    acknowledged = 0
    for moment in moments:
        listening, told = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                answer_without_end(tmp_path / "study", told)
            finally:
                os._exit(1)
        os.close(told)
        with os.fdopen(listening) as lines:
            assert lines.readline()
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            last = max((int(line) for line in lines.read().split("\n")[:-1]), default=acknowledged)
        acknowledged = max(acknowledged, last + 1)
        with Study.open(tmp_path / "study") as study:
            kept = [one.value for one in study.answers()]
            with study._database.read() as connection:
                assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        # One more than was acknowledged may be there: the kill came between the disk's word and ours.
        assert acknowledged <= len(kept) <= acknowledged + 1
        assert kept == [f"{number} " + "x" * 900 for number in range(len(kept))]
        acknowledged = len(kept)
    assert acknowledged > len(moments)

"""A study whose store is Postgres: readers at once, and a server that is killed in the middle."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("sqlalchemy", reason="the extra review is not installed")

from restain.images import write_png
from restain.review import Study, create_study, read_definition

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

READERS = ("anna", "bo", "chen")
ANSWERS = """
import sys
from restain.review import Study
url, reader = sys.argv[1:]
with Study.open(None, url) as study:
    item = study.next_item(reader)
    for number in range(len(study.answers()), 100_000):
        study.record(reader, item.token, "remarks", f"{number} " + "x" * 900)
        print(number, flush=True)
"""


@pytest.fixture
def study(tmp_path: Path, postgres: str) -> str:
    """The URL of a study of four images."""
    images = []
    for case in range(2):
        for modality in ("chemical", "virtual"):
            path = tmp_path / f"{modality}-{case}.png"
            write_png(path, np.full((8, 8, 3), 10 * case, np.uint8), {})
            images.append({"path": path.name, "case": f"P{case}", "modality": modality, "level": "2+"})
    questions = ["her2", {"kind": "text", "name": "remarks"}]
    content = {"title": "Trial", "images": images, "questions": questions, "readers": list(READERS), "seed": 1}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    create_study(read_definition(tmp_path / "study.yaml"), tmp_path / "study", postgres).close()
    return postgres


def answering(url: str, reader: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", ANSWERS, url, reader], stdout=subprocess.PIPE, text=True)


def test_no_acknowledged_answer_is_lost_when_the_server_is_killed(study: str, tmp_path: Path):
    kept = 0
    for least in (1, 7, 20):
        process = answering(study, "anna")
        lines = [process.stdout.readline() for _ in range(least)]
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.wait()
        acknowledged = int(lines[-1]) + 1
        with Study.open(tmp_path, study) as opened:
            values = [one.value for one in opened.answers()]
        # One more than was acknowledged may be there: the kill came between the disk's word and ours.
        assert acknowledged <= len(values) <= acknowledged + 1
        assert values == [f"{number} " + "x" * 900 for number in range(len(values))]
        assert len(values) >= kept + least
        kept = len(values)


def test_readers_at_once_lose_nothing_and_keep_their_own(study: str, tmp_path: Path):
    processes = {reader: answering(study, reader) for reader in READERS}
    told = {reader: [process.stdout.readline() for _ in range(15)] for reader, process in processes.items()}
    for process in processes.values():
        process.kill()
        process.wait()
    with Study.open(tmp_path, study) as opened:
        for reader, lines in told.items():
            own = [int(one.value.split()[0]) for one in opened.answers() if one.reader == reader]
            assert set(map(int, lines)) <= set(own)
            assert own == sorted(own)

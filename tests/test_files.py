"""Atomic files and folders, kept results, journals and locks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from restain.errors import RestainError
from restain.files import (
    digest,
    file_state,
    journal,
    locked_folder,
    make_folder,
    read_journal,
    read_kept,
    whole_file,
    whole_folder,
    write_json,
    write_kept,
)


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as partial:  # noqa: PT012
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    with whole_file(path) as partial:
        partial.write_text("new")
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"a.txt": "new"}


def test_a_folder_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "a"
    with whole_folder(folder) as partial:
        (partial / "one").write_text("1")
    # What a killed process left.
    (folder.parent / ".a.1234.part").mkdir()
    with pytest.raises(ZeroDivisionError), whole_folder(folder) as partial:  # noqa: PT012
        (partial / "two").write_text("2")
        raise ZeroDivisionError
    assert [one.name for one in folder.parent.iterdir()] == ["a"]
    assert [one.name for one in folder.iterdir()] == ["one"]
    with whole_folder(folder) as partial:
        (partial / "two").write_text("2")
    assert [one.name for one in folder.iterdir()] == ["two"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RestainError, match="output folder cannot be made"):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(RestainError, match="cannot be written"), whole_file(tmp_path / "none" / "a") as partial:
        partial.touch()


def test_json_keeps_names_in_any_script_and_those_that_are_not_utf8(tmp_path: Path) -> None:
    names = ["染色", "µm", b"\xff.svs".decode("utf-8", "surrogateescape")]
    write_json(tmp_path / "a.json", names)
    assert "染色" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_bytes()) == names


def test_a_result_is_kept_for_the_same_inputs_alone(tmp_path: Path) -> None:
    path, identity = tmp_path / "a.json", {"slides": ("a", 1), "mpp": 0.5}
    assert read_kept(path, identity) is None
    write_kept(path, identity, {"area": 2.0})
    assert read_kept(path, identity) == {"area": 2.0}
    assert read_kept(path, identity | {"mpp": 0.25}) is None
    path.write_bytes(path.read_bytes()[:-9])
    assert read_kept(path, identity) is None
    assert digest(identity) == digest(dict(reversed(identity.items()))) != digest({})


def test_a_journal_survives_a_torn_entry_and_is_resumed_for_the_same_inputs_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.jsonl"
    with journal(path, "one", ["head"]) as append:
        append([1, 2])
        append([3, 4])
    path.write_bytes(path.read_bytes()[:-4])
    assert read_journal(path, "one") == ["head", [1, 2]]
    assert read_journal(path, "other") is None
    with journal(path, "one", read_journal(path, "one") or []) as append:
        append([5, 6])
    assert read_journal(path, "one") == ["head", [1, 2], [5, 6]]


def test_the_state_of_a_file_changes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    before = file_state(path)
    path.write_text("12")
    assert file_state(path) != before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks nothing")
def test_a_folder_is_locked_for_one_process_and_free_after_its_death(tmp_path: Path) -> None:
    other = f"""
from pathlib import Path
from restain.files import locked_folder
with locked_folder(Path({str(tmp_path)!r}), ".lock"):
    print(flush=True)
    input()
"""
    command = [sys.executable, "-c", other]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(RestainError, match="in use by another process"), locked_folder(tmp_path, ".lock"):
            pass
        process.kill()
    with locked_folder(tmp_path, ".lock"):
        pass

"""Files and folders of results: atomic writes, results kept with the identity of their inputs, locks."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from restain.errors import RestainError

if sys.platform != "win32":
    import fcntl


def make_folder(folder: Path) -> Path:
    """Make a folder for results, with its parents, and return it.

    Raises RestainError if it cannot be made or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise RestainError(f"{folder}: the output folder cannot be made ({fault.strerror}).") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RestainError(f"{folder}: the output folder cannot be written to.")
    return folder


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary name beside ``path``, which replaces ``path`` on success.

    The name ends in ``.part``: tell its format to a writer that goes by the suffix. Raises RestainError if the system
    refuses to write (no folder, no right, no space).
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as fault:
        raise RestainError(f"{path} cannot be written ({fault.strerror or fault}).") from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Write a folder atomically: yield an empty folder beside it, which replaces it on success.

    Only one process at a time may write ``folder``: what others left unfinished is removed. Raises RestainError if the
    system refuses to write.
    """
    make_folder(folder.parent)
    partial, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    try:
        remove_partial(folder)
        partial.mkdir()
        yield partial
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
    except OSError as fault:
        raise RestainError(f"{folder} cannot be written ({fault.strerror or fault}).") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_partial(path: Path) -> None:
    """Remove what killed processes left of a :func:`whole_file` or :func:`whole_folder`."""
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if stale.is_dir():
            shutil.rmtree(stale)
        else:
            stale.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically, line ends as they are. Raises RestainError if the system refuses to write."""
    with whole_file(path) as partial:
        partial.write_bytes(text.encode("utf-8"))


def read_bytes(path: Path, count: int = -1) -> bytes:
    """The first ``count`` bytes of a file, by default all. Raises RestainError if it does not exist or cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except FileNotFoundError:
        raise RestainError(f"{path} does not exist.") from None
    except OSError as fault:
        raise RestainError(f"{path} cannot be read ({fault.strerror}).") from None


def read_utf8(path: Path, otherwise: str) -> str:
    """The text of a UTF-8 file.

    Raises RestainError if it cannot be read; if it is not UTF-8, with its path and ``otherwise``.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RestainError(f"{path} {otherwise}.") from None


def csv_text(text: str) -> str:
    """A text for a cell of a CSV that spreadsheets do not take for a formula: an apostrophe before =, +, -, @, tab."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table as CSV (UTF-8) atomically; None becomes an empty cell. Raises RestainError if the system refuses."""
    with whole_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Write a JSON file atomically. Raises RestainError if the system refuses to write."""
    text = json.dumps(content, indent=indent, ensure_ascii=False) + "\n"
    with whole_file(path) as partial:
        # File names that are not UTF-8 hold surrogates, which JSON writes as such escapes.
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))


def digest(facts: Any) -> str:
    """SHA-256 of facts that JSON can hold, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits. Raises RestainError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RestainError(f"{path} cannot be read: {error.strerror or error}.") from error


def file_state(path: Path) -> tuple[str, int, int]:
    """Absolute path, size in bytes and modification time in ns: another tuple after every change of the file."""
    state = path.stat()
    return str(path.resolve()), state.st_size, state.st_mtime_ns


def read_kept(path: Path, identity: Any) -> dict[str, Any] | None:
    """The content that :func:`write_kept` wrote for the same ``identity``; None for another one, or no whole file."""
    try:
        content = json.loads(path.read_bytes())
        same = content.pop("identity") == json.loads(json.dumps(identity))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return content if same else None


def write_kept(path: Path, identity: Any, content: dict[str, Any]) -> None:
    """Write a result with the ``identity`` of all its inputs, for :func:`read_kept`.

    Raises RestainError if the system refuses to write.
    """
    write_json(path, {"identity": identity, **content})


def read_journal(path: Path, identity: Any) -> list[Any] | None:
    """The entries that :func:`journal` wrote for the same ``identity``, without torn ones; None for another one."""
    try:
        first, *lines = path.read_bytes().splitlines()
        if json.loads(first) != json.loads(json.dumps({"identity": identity})):
            return None
    except (OSError, ValueError):
        return None
    entries = []
    for line in lines:
        with suppress(ValueError):
            entries.append(json.loads(line))
    return entries


@contextmanager
def journal(path: Path, identity: Any, entries: Iterable[Any]) -> Iterator[Callable[[Any], None]]:
    """Begin a JSON-lines file with ``identity`` and ``entries``; the function that is yielded appends an entry.

    Appended entries survive a kill of the process; see :func:`read_journal`. Raises RestainError if the system refuses
    to write.
    """
    make_folder(path.parent)
    write_text(path, "".join(json.dumps(line) + "\n" for line in ({"identity": identity}, *entries)))
    with open(path, "a", encoding="utf-8") as file:

        def append(entry: Any) -> None:
            file.write(json.dumps(entry) + "\n")
            file.flush()

        yield append


def lock(file: IO[Any], wait: bool = False) -> bool:
    """Lock an open file for this process until it is closed; on Windows nothing is locked.

    Returns:
        Whether the lock was free (always True with ``wait``).
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            return False
    return True


@contextmanager
def locked_folder(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes out of an existing folder while the block runs, by a lock on its file ``name``.

    The file stays: a removed lock could be one that another process has just taken. Raises RestainError if another
    process holds the lock, or its file cannot be written.
    """
    try:
        file = open(folder / name, "ab")  # noqa: SIM115
    except OSError as fault:
        raise RestainError(f"{folder / name} cannot be written ({fault.strerror}).") from None
    with file:
        if not lock(file):
            raise RestainError(f"{folder} is in use by another process.")
        yield

"""Transforms as plain files: JSON for what is few, NumPy's own format (never pickled) for the displacement."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.files import make_folder, whole_file, write_json
from restain.geometry import Size
from restain.register.transform import Lattice, Transform

FORMAT = "restain transform 1"
TRANSFORM_FILE = "transform.json"
DISPLACEMENT_FILE = "displacement.npy"
SIDES = ("fixed", "moving")


def write_transform(folder: Path, transform: Transform, names: tuple[str, str] = ("", "")) -> Path:
    """Write ``transform.json`` and, where there is a displacement, ``displacement.npy`` into ``folder``.

    Args:
        folder: made where needed.
        transform: what to write.
        names: the fixed and the moving slide's names, for whoever reads the file.

    Returns:
        The path of ``transform.json``, written last and with the other file's digest.

    Raises:
        RestainError: if a file cannot be written.
    """
    make_folder(folder)
    content: dict[str, Any] = {
        "format": FORMAT,
        "maps": "px of the fixed slide's level 0 to px of the moving slide's; the first pixel's corner is (0, 0)",
        "matrix": transform.matrix.tolist(),
        "fixed": _side(names[0], transform.fixed_size, transform.fixed_mpp),
        "moving": _side(names[1], transform.moving_size, transform.moving_mpp),
    }
    if (lattice := transform.lattice) is not None:
        buffer = io.BytesIO()
        np.save(buffer, lattice.nodes, allow_pickle=False)
        with whole_file(folder / DISPLACEMENT_FILE) as partial:
            partial.write_bytes(buffer.getvalue())
        content["displacement"] = {
            "file": DISPLACEMENT_FILE,
            "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
            "spacing": lattice.spacing,
            "origin": list(lattice.origin),
            "means": "(rows, columns, 2): x, y in px of the fixed slide, added to a point before the matrix; cubic B-spline",
        }
    path = folder / TRANSFORM_FILE
    write_json(path, content)
    return path


def read_transform(path: Path, *, inverse: bool = False) -> Transform:
    """Read a transform from px of the fixed slide to px of the moving one.

    Takes what :func:`write_transform` wrote (the folder or its ``transform.json``), a JSON list of 2 x 3 or 3 x 3 numbers
    (or an object with one under ``matrix``), and a text file with 6 or 9 numbers in rows, as QuPath shows and saves the
    affine matrix of its image overlays.

    Args:
        path: the file, or the folder.
        inverse: the file's map leads from the moving slide to the fixed one.

    Raises:
        RestainError: if the file cannot be read or holds none of these.
    """
    if path.is_dir():
        path = path / TRANSFORM_FILE
    text = text_of(path, "is not text; a transform is JSON or rows of numbers (pickled files are never opened)")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, Mapping) and "format" in content:
        transform = _own(path, content)
    else:
        numbers = content.get("matrix") if isinstance(content, Mapping) else content
        transform = _bare(path, numbers if content is not None else _rows(path, text))
    try:
        return transform.inverted() if inverse else transform
    except ValueError as fault:
        raise RestainError(f"{path}: {fault}.") from None


def text_of(path: Path, otherwise: str) -> str:
    """The text of a UTF-8 file.

    Raises:
        RestainError: if it cannot be read; if it is not UTF-8, its path and ``otherwise``.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise RestainError(f"{path} does not exist.") from None
    except OSError as fault:
        raise RestainError(f"{path} cannot be read ({fault.strerror}).") from None
    except UnicodeDecodeError:
        raise RestainError(f"{path} {otherwise}.") from None


def _side(name: str, size: Size | None, mpp: float | None) -> dict[str, Any]:
    return {"name": name, "size": None if size is None else [size.width, size.height], "mpp": mpp}


def _own(path: Path, content: Mapping[str, Any]) -> Transform:
    if content["format"] != FORMAT:
        raise RestainError(f"{path} is of the format {content['format']!r}; this version of restain reads {FORMAT!r}.")
    transform = _bare(path, content.get("matrix"))
    try:
        stored = content.get("displacement")
        sizes = [None if content[which]["size"] is None else Size(*map(int, content[which]["size"])) for which in SIDES]
        mpps = [None if content[which]["mpp"] is None else float(content[which]["mpp"]) for which in SIDES]
        lattice = None if stored is None else _lattice(path, stored)
        return Transform(transform.matrix, sizes[0], sizes[1], mpps[0], mpps[1], lattice)
    except (KeyError, TypeError, ValueError):
        raise RestainError(f"{path} is damaged: it lacks parts that a transform of restain has.") from None


def _lattice(path: Path, stored: Mapping[str, Any]) -> Lattice:
    file = path.parent / Path(stored["file"]).name
    try:
        data = file.read_bytes()
    except OSError as fault:
        raise RestainError(f"{file}, which belongs to {path}, cannot be read ({fault.strerror}).") from None
    if hashlib.sha256(data).hexdigest() != stored["sha256"]:
        raise RestainError(f"{file} is damaged or does not belong to {path}.")
    x, y = stored["origin"]
    nodes = np.load(io.BytesIO(data), allow_pickle=False)
    return Lattice(nodes.astype(np.float32), float(stored["spacing"]), (float(x), float(y)))


def _bare(path: Path, numbers: Any) -> Transform:
    try:
        matrix: NDArray[np.float64] = np.array(numbers, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.size in (6, 9) and matrix.ndim <= 2:
        try:
            return Transform(matrix.reshape(-1, 3))
        except ValueError:
            raise RestainError(f"{path} holds a matrix that is not finite or not invertible.") from None
    raise RestainError(
        f"{path} holds no transform: expected one written by restain, or the 2 x 3 or 3 x 3 numbers of a matrix."
    )


def _rows(path: Path, text: str) -> list[float]:
    words = text.translate(str.maketrans(",;[]()", "      ")).split()
    try:
        return [float(word) for word in words]
    except ValueError:
        raise RestainError(f"{path} holds no transform: neither JSON nor rows of numbers.") from None

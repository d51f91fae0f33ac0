"""Transforms as files: JSON for the matrix, NumPy's own format (never pickled) for the displacement."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from restain.errors import RestainError
from restain.files import make_folder, read_utf8, whole_file, write_json
from restain.geometry import Size
from restain.registration.transform import Lattice, Transform

FORMAT = "restain transform 1"
TRANSFORM_FILE = "transform.json"
DISPLACEMENT_FILE = "displacement.npy"


def write_transform(folder: Path, transform: Transform, names: tuple[str, str] = ("", "")) -> Path:
    """Write ``transform.json`` and, if there is a displacement, ``displacement.npy`` into ``folder``, made if needed.

    ``names`` are those of the fixed and the moving slide.

    Returns:
        The path of ``transform.json``, written last and with the other file's digest.

    Raises:
        RestainError: if a file cannot be written.
    """
    make_folder(folder)
    sides = (
        ("fixed", transform.fixed_size, transform.fixed_mpp),
        ("moving", transform.moving_size, transform.moving_mpp),
    )
    content: dict[str, Any] = {
        "format": FORMAT,
        "maps": "px of the fixed slide's level 0 to px of the moving slide's; the first pixel's corner is (0, 0)",
        "matrix": transform.matrix.tolist(),
    }
    for name, (key, size, mpp) in zip(names, sides, strict=True):
        content[key] = {"name": name, "size": None if size is None else [size.width, size.height], "mpp": mpp}
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
    write_json(folder / TRANSFORM_FILE, content)
    return folder / TRANSFORM_FILE


def read_transform(path: Path) -> Transform:
    """Read a transform from px of the fixed slide to px of the moving one.

    Takes what :func:`write_transform` wrote (the folder or its ``transform.json``), a JSON list of 2 x 3 or 3 x 3 numbers
    (or an object with one under ``matrix``), and a text file with 6 or 9 numbers in rows, as QuPath shows and saves the
    affine matrix of its image overlays.

    Raises:
        RestainError: if the file cannot be read or holds none of these.
    """
    if path.is_dir():
        path = path / TRANSFORM_FILE
    text = read_utf8(path, "is not text; a transform is JSON or rows of numbers (pickled files are never opened)")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return _from_matrix(path, _rows(path, text))
    if not isinstance(content, Mapping):
        return _from_matrix(path, content)
    if content.get("format", FORMAT) != FORMAT:
        raise RestainError(f"{path} is of the format {content['format']!r}; this version of restain reads {FORMAT!r}.")
    bare = _from_matrix(path, content.get("matrix"))
    if "format" not in content:
        return bare
    try:
        fixed, moving = (
            (None if side["size"] is None else Size(*map(int, side["size"])), side["mpp"] and float(side["mpp"]))
            for side in (content["fixed"], content["moving"])
        )
        lattice = _read_lattice(path, content["displacement"]) if content.get("displacement") else None
        return Transform(bare.matrix, fixed[0], moving[0], fixed[1], moving[1], lattice)
    except (KeyError, TypeError, ValueError):
        raise RestainError(f"{path} is damaged: it lacks parts of a transform of restain.") from None


def _read_lattice(path: Path, stored: Mapping[str, Any]) -> Lattice:
    file = path.parent / Path(stored["file"]).name
    try:
        data = file.read_bytes()
    except OSError as fault:
        raise RestainError(f"{file}, which belongs to {path}, cannot be read ({fault.strerror}).") from None
    if hashlib.sha256(data).hexdigest() != stored["sha256"]:
        raise RestainError(f"{file} is damaged or does not belong to {path}.")
    x, y = map(float, stored["origin"])
    nodes = np.load(io.BytesIO(data), allow_pickle=False)
    return Lattice(nodes.astype(np.float32), float(stored["spacing"]), (x, y))


def _from_matrix(path: Path, numbers: Any) -> Transform:
    try:
        matrix = np.array(numbers, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.size not in (6, 9) or matrix.ndim > 2:
        raise RestainError(
            f"{path} holds no transform: expected one written by restain, or the 2 x 3 or 3 x 3 numbers of a matrix."
        )
    try:
        return Transform(matrix.reshape(-1, 3))
    except ValueError:
        raise RestainError(f"{path} holds a matrix that is not finite or not invertible.") from None


def _rows(path: Path, text: str) -> list[float]:
    try:
        return [float(number) for number in text.translate(str.maketrans(",;[]()", "      ")).split()]
    except ValueError:
        raise RestainError(f"{path} holds no transform: neither JSON nor rows of numbers.") from None

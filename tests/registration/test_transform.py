"""Transforms against what they are by definition: matrices exactly, displacements to a stated error, both ways."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.geometry import Size
from restain.registration import Lattice, Transform, read_transform, write_transform

SIZE = Size(2000, 1500)
POINTS = np.random.default_rng(0).uniform((0, 0), (2000, 1500), (200, 2))


def wavy(amplitude: float = 12.0, seed: int = 0) -> Lattice:
    """A smooth displacement: half a wave in about 500 px, so that it does not fold."""
    phase = np.random.default_rng(seed).uniform(0, 6, 2)
    x, y = np.meshgrid(np.arange(0, 2101, 100.0), np.arange(0, 1601, 100.0))
    nodes = np.stack([np.sin(y / 170 + phase[0]), np.cos(x / 190 + phase[1])], axis=-1) * amplitude
    return Lattice(nodes.astype(np.float32), 100.0)


def turn(degrees: float, scale: float = 1.0, mirrored: bool = False) -> NDArray[np.float64]:
    a = math.radians(degrees)
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    if mirrored:
        matrix[:2, :2] = matrix[:2, :2] @ np.diag([-1, 1])
    matrix[:2, 2] = (300.0, -120.0)
    return matrix


def transform(**facts: object) -> Transform:
    return Transform(turn(33.0, 1.1, True), SIZE, Size(1800, 1800), 0.5, 0.25, **facts)  # type: ignore[arg-type]


matrices = st.builds(turn, st.floats(-180, 180), st.floats(0.5, 2), st.booleans())


@given(matrices)
def test_a_matrix_maps_exactly_and_back(matrix: NDArray[np.float64]) -> None:
    there = Transform(matrix).forward(POINTS)
    np.testing.assert_allclose(there, POINTS @ matrix[:2, :2].T + matrix[:2, 2], atol=1e-8)
    np.testing.assert_allclose(Transform(matrix).inverse(there), POINTS, atol=1e-6)


def test_a_projective_matrix_maps_and_back() -> None:
    matrix = turn(10.0)
    matrix[2] = (1e-5, -2e-5, 1.0)
    one = Transform(matrix)
    homogeneous = np.column_stack([POINTS, np.ones(len(POINTS))]) @ matrix.T
    np.testing.assert_allclose(one.forward(POINTS), homogeneous[:, :2] / homogeneous[:, 2:], atol=1e-8)
    np.testing.assert_allclose(one.inverse(one.forward(POINTS)), POINTS, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(matrices, st.floats(0, 60), st.integers(0, 9))
def test_a_displacement_maps_back(matrix: NDArray[np.float64], amplitude: float, seed: int) -> None:
    one = Transform(matrix, SIZE, SIZE, lattice=wavy(amplitude, seed))
    np.testing.assert_allclose(one.inverse(one.forward(POINTS)), POINTS, atol=1e-3)


def test_the_lattice_is_hit_at_its_nodes_and_constant_beyond() -> None:
    lattice = wavy()
    np.testing.assert_allclose(lattice.at(np.array([[500.0, 700.0]]))[0], lattice.nodes[7, 5], atol=1e-4)
    np.testing.assert_allclose(lattice.at(np.array([[-900.0, 700.0]]))[0], lattice.nodes[7, 0], atol=1e-4)


def test_folding_is_seen() -> None:
    assert transform().folding().folded_share == 0
    smooth = transform(lattice=wavy(12.0)).folding()
    assert smooth.folded_share == 0
    assert 0.5 < smooth.least < 1 < smooth.most < 2
    x = np.broadcast_to(np.arange(0, 2001, 100.0), (16, 21))
    turned_over = Lattice(np.stack([-1.5 * x, np.zeros_like(x)], axis=-1).astype(np.float32), 100.0)
    folded = transform(lattice=turned_over)
    assert folded.folding().folded_share > 0.8
    # Mirroring by the matrix is no folding.
    assert Transform(turn(0, 1, True), SIZE, lattice=wavy(0.0)).folding().least == pytest.approx(1.0)


def test_points_without_a_counterpart_are_nan() -> None:
    nodes = np.zeros((16, 21, 2), np.float32)
    nodes[:, 10:, 0] = 300.0
    torn = Transform(np.eye(3), SIZE, SIZE, lattice=Lattice(-nodes, 100.0))
    back = torn.inverse(torn.forward(POINTS))
    found = np.isfinite(back).all(axis=1)
    np.testing.assert_allclose(torn.forward(back[found]), torn.forward(POINTS)[found], atol=0.01)


@settings(deadline=None, max_examples=10)
@given(matrix=matrices, amplitude=st.floats(0, 30))
def test_files_keep_everything(
    tmp_path_factory: pytest.TempPathFactory, matrix: NDArray[np.float64], amplitude: float
) -> None:
    folder = tmp_path_factory.mktemp("transform")
    one = Transform(matrix, SIZE, Size(10, 20), 0.5, None, wavy(amplitude))
    path = write_transform(folder, one, ("he.svs", "ihc.svs"))
    for place in (folder, path):
        again = read_transform(place)
        np.testing.assert_array_equal(again.forward(POINTS), one.forward(POINTS))
        assert (again.fixed_size, again.moving_size, again.fixed_mpp, again.moving_mpp) == (
            SIZE,
            Size(10, 20),
            0.5,
            None,
        )
    assert json.loads(path.read_text())["moving"]["name"] == "ihc.svs"


@pytest.mark.parametrize(
    "text",
    [
        "[[2, 0, 5], [0, 2, -3]]",
        "[[2, 0, 5], [0, 2, -3], [0, 0, 1]]",
        '{"matrix": [[2, 0, 5], [0, 2, -3]]}',
        "2.0,\t0.0,\t5.0,\n0.0,\t2.0,\t-3.0\n",
        "2 0 5\n0 2 -3\n0 0 1",
    ],
)
def test_bare_matrices_are_read_both_ways(tmp_path: Path, text: str) -> None:
    (file := tmp_path / "affine.txt").write_text(text)
    np.testing.assert_allclose(read_transform(file).forward([[1.0, 1.0]]), [[7.0, -1.0]])
    np.testing.assert_allclose(read_transform(file).inverse([[7.0, -1.0]]), [[1.0, 1.0]])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no transform"),
        (b"hello", "no transform"),
        (b"[1, 2, 3]", "no transform"),
        (b"[[1, 0, 0], [2, 0, 0]]", "not invertible"),
        (b"1 0 nan 0 1 0", "not finite"),
        (b"\x80\x05pickle", "not text"),
        (b'{"format": "restain transform 9", "matrix": []}', "format"),
        (b'{"format": "restain transform 1", "matrix": [[1, 0, 0], [0, 1, 0]]}', "damaged"),
    ],
)
def test_what_is_no_transform_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (file := tmp_path / "t.json").write_bytes(content)
    with pytest.raises(RestainError, match=words) as fault:
        read_transform(file)
    assert str(file) in str(fault.value)


def test_a_displacement_of_another_result_is_refused(tmp_path: Path) -> None:
    write_transform(tmp_path / "a", transform(lattice=wavy(1.0)))
    write_transform(tmp_path / "b", transform(lattice=wavy(2.0)))
    (tmp_path / "b" / "displacement.npy").replace(tmp_path / "a" / "displacement.npy")
    with pytest.raises(RestainError, match="does not belong"):
        read_transform(tmp_path / "a")
    (tmp_path / "a" / "displacement.npy").unlink()
    with pytest.raises(RestainError, match="cannot be read"):
        read_transform(tmp_path / "a")


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.eye(2), np.full((2, 3), np.nan)])
def test_matrices_that_map_nothing_are_refused(matrix: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="matrix"):
        Transform(matrix)

"""Spots of spatial transcriptomics: three sources, the statistics, and a whole evaluation on a made slide."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr

from restain.data.spots import Spots
from restain.errors import RestainError
from restain.geometry import Size
from restain.spots import evaluate_spots, read_spots
from restain.spots.association import blocks_of, noise_ceiling, spearman
from restain.spots.densities import under_spots
from restain.stain import load

N = 12
XY = np.array([(100.0 + 60 * (n % 4), 90.0 + 70 * (n // 4)) for n in range(N)])
TOTAL = np.arange(1000, 1000 + N)
COUNTS = np.arange(N) * 3


def write_csv(path: Path, **changes: str) -> Path:
    lines = ["spot,x_px,y_px,total,ERBB2,ACTB"]
    lines += [
        f"s{n},{XY[n, 0]},{XY[n, 1]},{TOTAL[n]},{changes.get(f's{n}', COUNTS[n])},{TOTAL[n] - COUNTS[n]}"
        for n in range(N)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def matrix() -> np.ndarray:
    """Counts of ERBB2 and of all other genes, ``(N, 2)``."""
    return np.column_stack([TOTAL - COUNTS, COUNTS])


def write_visium(folder: Path, header: bool) -> Path:
    import h5py

    (folder / "spatial").mkdir(parents=True)
    counts = scipy.sparse.csc_matrix(matrix().T)
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        group["data"], group["indices"], group["indptr"] = counts.data, counts.indices, counts.indptr
        group["shape"] = np.array(counts.shape)
        group["barcodes"] = np.array([f"s{n}".encode() for n in range(N)])
        group.create_group("features")["name"] = np.array([b"ACTB", b"ERBB2"])
    lines = ["barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"] if header else []
    lines += [f"s{n},1,0,0,{XY[n, 1]},{XY[n, 0]}" for n in range(N)] + ["outside,0,0,0,5,5"]
    name = "tissue_positions.csv" if header else "tissue_positions_list.csv"
    (folder / "spatial" / name).write_text("\n".join(lines) + "\n")
    (folder / "spatial/scalefactors_json.json").write_text(json.dumps({"spot_diameter_fullres": 80.0}))
    return folder


def write_h5ad(path: Path) -> Path:
    import anndata
    import pandas as pd

    data = anndata.AnnData(
        scipy.sparse.csr_matrix(np.log1p(matrix().astype(np.float32))),
        obs=pd.DataFrame(index=pd.Index([f"s{n}" for n in range(N)], dtype=object)),
        var=pd.DataFrame(index=pd.Index(["ACTB", "ERBB2"], dtype=object)),
    )
    data.layers["counts"] = scipy.sparse.csr_matrix(matrix())
    data.obsm["spatial"] = XY
    data.uns["spatial"] = {"one": {"scalefactors": {"spot_diameter_fullres": 80.0}}}
    data.write_h5ad(path)
    return path


@pytest.mark.parametrize("source", ["csv", "visium", "visium-1", "h5ad"])
def test_three_sources_give_the_same_spots(tmp_path: Path, source: str) -> None:
    path = {
        "csv": lambda: write_csv(tmp_path / "spots.csv"),
        "visium": lambda: write_visium(tmp_path / "visium", header=True),
        "visium-1": lambda: write_visium(tmp_path / "visium", header=False),
        "h5ad": lambda: write_h5ad(tmp_path / "spots.h5ad"),
    }[source]()
    spots = read_spots(path, "erbb2" if source == "csv" else "ERBB2", ["EPCAM", "Actb"])
    assert spots.names == tuple(f"s{n}" for n in range(N))
    np.testing.assert_allclose(spots.xy, XY)
    np.testing.assert_array_equal(spots.total, TOTAL)
    np.testing.assert_array_equal(spots.counts, COUNTS)
    assert list(spots.also) == ["Actb"]
    np.testing.assert_array_equal(spots.also["Actb"], TOTAL - COUNTS)
    assert spots.diameter_px == (None if source == "csv" else 80.0)


def test_faults_of_the_source_are_named(tmp_path: Path) -> None:
    for path, gene, fault in (
        (tmp_path / "none.csv", "ERBB2", "none.csv does not exist"),
        (write_csv(tmp_path / "a.csv"), "EGFR", "egfr missing"),
        (write_csv(tmp_path / "b.csv", s3="x"), "ERBB2", "line 5: .* must be numbers"),
        (write_csv(tmp_path / "c.csv", s3="1.5"), "ERBB2", "raw counts"),
        (write_csv(tmp_path / "d.csv", s3="5000"), "ERBB2", "more counts of ERBB2 than in total"),
        (tmp_path, "ERBB2", "no Visium folder"),
    ):
        with pytest.raises(RestainError, match=fault):
            read_spots(path, gene)
    (tmp_path / "e.h5ad").write_text("text")
    with pytest.raises(RestainError, match=r"e\.h5ad is no AnnData file"):
        read_spots(tmp_path / "e.h5ad", "ERBB2")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(20, 60))
def test_rho_is_scipys_and_the_partial_one_ignores_what_is_given(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    one, other, third = rng.normal(size=(3, n)).round(1)
    assert spearman(one, other) == pytest.approx(spearmanr(one, other)[0], abs=1e-9)
    assert spearman(one, other, third) == pytest.approx(spearman(np.exp(one), other, third**3), abs=1e-9)
    xy, xz, yz = (spearmanr(a, b)[0] for a, b in ((one, other), (one, third), (other, third)))
    assert spearman(one, other, third) == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)), abs=1e-6)


def test_a_constant_density_has_no_rho() -> None:
    assert np.isnan(spearman(np.ones(9), np.arange(9.0)))


def test_noise_lowers_the_ceiling() -> None:
    rng = np.random.default_rng(0)
    share = rng.gamma(2, 1e-3, 200)

    def made(depth: int) -> Spots:
        total = np.full(200, depth)
        return Spots(
            tuple(map(str, range(200))), rng.random((200, 2)), total, rng.binomial(total, share), "ERBB2", None
        )

    few, many = noise_ceiling(made(2_000)), noise_ceiling(made(100_000))
    assert few < many <= 1
    truth = made(2_000)
    assert noise_ceiling(truth) == pytest.approx(spearmanr(share, truth.counts / truth.total)[0], abs=0.08)


def test_blocks_are_squares() -> None:
    grid = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), -1).reshape(-1, 2) * 200
    blocks = blocks_of(grid, 1000)
    assert set(np.bincount(blocks)) == {25}
    assert len({tuple(xy // 1000) for xy in grid[blocks == blocks[0]]}) == 1


def test_a_spot_is_the_mean_of_its_disc() -> None:
    map_ = np.zeros((50, 80))
    map_[20:31, 40:51] = 1
    spots = Spots(
        ("a", "b", "c"), np.array([(91.0, 51.0), (10.0, 10.0), (159.0, 99.0)]), *np.ones((2, 3), int), "X", None
    )
    found = under_spots(map_, spots, Size(160, 100), 20)
    np.testing.assert_allclose(found, [1, 0, 0])


@pytest.mark.slow
def test_a_slide_is_evaluated_with_its_baselines(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    he = np.full((400, 480, 3), 240, np.uint8)
    for (x, y), count in zip(XY.astype(int), COUNTS, strict=True):
        he[y - 24 : y + 24, x - 24 : x + 24] = np.clip(
            235 - [1.4, 3, 0.8] * np.array(count) - rng.integers(0, 30, (48, 48, 1)), 0, 255
        )
    Image.fromarray(he).save(tmp_path / "he.png")
    found = evaluate_spots(
        tmp_path / "he.png", write_csv(tmp_path / "spots.csv"), tmp_path / "out", model=load(), spot_um=20, mpp=0.46
    )
    assert found.associations["hematoxylin"].rho.mean > 0.9
    assert {"virtual DAB", "hematoxylin, 24 µm", "optical density, 100 µm"} <= set(found.densities)
    written = json.loads((tmp_path / "out/spots.json").read_text())
    assert written["associations"]["virtual DAB"]["rho"]["mean"] == pytest.approx(
        found.associations["virtual DAB"].rho.mean
    )
    assert len((tmp_path / "out/spots.csv").read_text().splitlines()) == N + 1
    page = found.page.read_text()
    assert "virtual stain, research use only" in page
    assert page.count("<svg") == 2
    Image.fromarray(he[:60, :60]).save(tmp_path / "small.png")
    with pytest.raises(RestainError, match="12 of 12 spots lie outside"):
        evaluate_spots(tmp_path / "small.png", tmp_path / "spots.csv", tmp_path / "no", model=load(), mpp=0.46)

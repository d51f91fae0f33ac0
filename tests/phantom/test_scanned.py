from pathlib import Path

import numpy as np
import pytest
from skimage.transform import resize_local_mean

from restain import RestainError
from restain.data import open_pairs
from restain.her2 import Her2Level
from restain.phantom import make_pair, read_truth, write_phantom


def test_it_shows_the_tissue_that_was_drawn_with_all_its_stain_but_smoother() -> None:
    scanned = make_pair(3, 1, Her2Level.TWO, size=200, mpp=0.5, scanned_at=0.25)
    drawn = make_pair(3, 1, Her2Level.TWO, size=400, mpp=0.25)
    assert scanned.he.shape == scanned.ihc.shape == (200, 200, 3)
    assert scanned.dab.shape == (200, 200)
    assert scanned.dab.mean() == pytest.approx(drawn.dab.mean(), rel=1e-3)
    small = resize_local_mean(drawn.he.astype(np.float32), (200, 200))
    assert np.abs(small - scanned.he).mean() < 4
    np.testing.assert_allclose(scanned.cells.x, drawn.cells.x / 2, rtol=1e-6)
    plain = make_pair(3, 1, Her2Level.TWO, size=200, mpp=0.5)

    def noise(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image.astype(float), n=2, axis=1)).mean())

    assert noise(scanned.he) < noise(plain.he)
    again = make_pair(3, 1, Her2Level.TWO, size=200, mpp=0.5, scanned_at=0.25)
    np.testing.assert_array_equal(again.he, scanned.he)


def test_a_data_set_of_them_goes_on_and_is_read_like_any_other(tmp_path: Path) -> None:
    options = {"pairs": 3, "size": 128, "seed": 2, "mpp": 0.5, "test_share": 0.34, "scanned_at": 0.25}
    write_phantom(tmp_path / "set", **options)
    assert write_phantom(tmp_path / "set", **options).written == 0
    pairs = open_pairs([tmp_path / "set"])
    assert len(pairs.split("train")) + len(pairs.split("val")) == 2
    truth = next((tmp_path / "set" / "truth" / "train").glob("*.tif"))
    assert read_truth(truth).shape == (128, 128)
    with pytest.raises(RestainError, match="other parameters"):
        write_phantom(tmp_path / "set", **{**options, "scanned_at": 0.4})
    with pytest.raises(RestainError, match=r"not at 0\.6"):
        write_phantom(tmp_path / "other", **{**options, "scanned_at": 0.6})

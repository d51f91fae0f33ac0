"""Which pairs are drawn and how often, and what a crop holds."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.data import Pair
from restain.data.decoded import DecodedInMemory, PairStore
from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.images import write_png
from restain.losses import UNKNOWN_LEVEL
from restain.recipe import AugmentRecipe, DataRecipe, Recipe
from restain.training.batches import LEVEL_PX, Crops, decoded_pairs


def crops(weights: list[float] | None, count: int, seed: int = 0) -> Crops:
    pairs = [Pair(f"{i}", "train", None, Path(f"he{i}"), Path(f"ihc{i}")) for i in range(count)]
    drawn = None if weights is None else np.array(weights) / np.mean(weights)
    return Crops(DecodedInMemory(pairs), 32, AugmentRecipe(), seed, weights=drawn)


def drawn(source: Crops, epochs: int) -> list[int]:
    return [source._drawn(epoch, place) for epoch in range(epochs) for place in range(len(source.pairs))]


@given(st.integers(1, 40), st.integers(0, 9), st.floats(0.01, 50))
@settings(max_examples=40, deadline=None)
def test_equal_weights_draw_what_no_weights_draw(count: int, seed: int, weight: float) -> None:
    assert drawn(crops([weight] * count, count, seed), 3) == drawn(crops(None, count, seed), 3)


@given(st.lists(st.floats(0, 10), min_size=2, max_size=20).filter(lambda w: sum(w) > 0.1))
@settings(max_examples=40, deadline=None)
def test_an_epoch_draws_each_pair_as_often_as_its_weight_says_to_within_one(weights: list[float]) -> None:
    n = len(weights)
    counts = Counter(drawn(crops(weights, n), 1))
    for index, weight in enumerate(np.array(weights) / np.mean(weights)):
        assert np.floor(weight - 1e-6) <= counts[index] <= np.ceil(weight + 1e-6)


def test_over_many_epochs_shares_are_those_of_the_weights_and_a_weight_of_0_is_never_drawn() -> None:
    weights = [0.0, 1.0, 2.5, 0.5]
    counts = Counter(drawn(crops(weights, 4), 2000))
    assert counts[0] == 0
    shares = np.array([counts[i] for i in range(4)]) / 8000
    np.testing.assert_allclose(shares, np.array(weights) / 4, atol=0.01)


def test_a_draw_depends_on_its_number_alone() -> None:
    source = crops([3, 1, 2], 3)
    once = drawn(source, 4)
    assert [source._drawn(k // 3, k % 3) for k in reversed(range(12))] == once[::-1]


def written_pairs(folder: Path) -> list[Pair]:
    """Two pairs of 96 px: a 0 of even colour and a 3+ of another."""
    pairs = []
    for number, level in enumerate((Her2Level.ZERO, Her2Level.THREE)):
        paths = folder / f"he{number}.png", folder / f"ihc{number}.png"
        for path, value in zip(paths, (80 + 100 * number, 220 - 100 * number), strict=True):
            write_png(path, np.full((96, 96, 3), value, np.uint8), mpp=0.46)
        pairs.append(Pair(f"{number}", "train", level, *paths))
    return pairs


PLAIN = AugmentRecipe(he_stain=0, he_hue=0, he_white=0)


def test_a_mixed_crop_holds_two_levels_and_says_where(tmp_path: Path) -> None:
    source = Crops(DecodedInMemory(written_pairs(tmp_path)), 64, PLAIN, 3, mix=1.0)
    levels = set()
    for k in range(12):
        he, _, level, _, level_map = source[k]
        assert level_map.shape == (64 // LEVEL_PX,) * 2
        of_three = np.where(level_map == int(Her2Level.THREE), 180, 80)
        shown = he[LEVEL_PX // 2 :: LEVEL_PX, LEVEL_PX // 2 :: LEVEL_PX, 0]
        np.testing.assert_array_equal(shown, of_three)
        if len(np.unique(level_map)) == 2:
            assert level == UNKNOWN_LEVEL
            levels.add("two")
        else:
            levels.add("one")
    assert "two" in levels


def test_crops_that_are_not_mixed_have_one_level_everywhere(tmp_path: Path) -> None:
    source = Crops(DecodedInMemory(written_pairs(tmp_path)), 64, PLAIN, 3)
    for _, _, level, _, level_map in map(source.__getitem__, range(4)):
        assert (level_map == level).all()


def darker(he: np.ndarray) -> np.ndarray:
    assert he.shape == (96, 96, 3), "the whole picture is normalised, not the crop"
    return he // 2


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_whole_picture_is_normalised_once_before_the_crop(tmp_path: Path, on_disk: bool) -> None:
    seen = []

    def counted(he: np.ndarray) -> np.ndarray:
        seen.append(he.shape)
        return darker(he)

    pairs = written_pairs(tmp_path)
    decoded: DecodedInMemory | PairStore = DecodedInMemory(pairs, counted)
    if on_disk:
        decoded = PairStore(tmp_path / "store", pairs, counted)
        decoded.fill()
    source = Crops(decoded, 64, PLAIN, 3)
    assert {int(source[k][0].max()) for k in range(6)} == {40, 90}
    assert len(seen) == 2


def test_a_store_gives_the_crops_of_the_pictures_and_follows_its_sources(tmp_path: Path) -> None:
    pairs = written_pairs(tmp_path)
    store = PairStore(tmp_path / "store", pairs)
    told: list[tuple[int, int]] = []
    store.fill(lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    for k in range(4):
        for stored, read in zip(
            Crops(store, 64, PLAIN, 3)[k], Crops(DecodedInMemory(pairs), 64, PLAIN, 3)[k], strict=True
        ):
            np.testing.assert_array_equal(stored, read)

    again = PairStore(tmp_path / "store", pairs)
    assert again.missing() == []
    write_png(pairs[1].he_path, np.full((96, 96, 3), 7, np.uint8), mpp=0.46)
    next((tmp_path / "store").glob("he0-*")).write_bytes(b"torn")
    assert again.missing() == [0, 1]
    again.fill()
    assert again[1].he.max() == 7
    assert len(list((tmp_path / "store").iterdir())) == 2


def test_normalised_and_plain_pictures_have_files_of_their_own(tmp_path: Path) -> None:
    pairs = written_pairs(tmp_path)
    plain, changed = PairStore(tmp_path / "store", pairs), PairStore(tmp_path / "store", pairs, darker, "darker")
    plain.fill()
    assert changed.missing() == [0, 1]
    changed.fill()
    assert (plain[0].he.max(), changed[0].he.max()) == (80, 40)


def test_a_full_disk_is_one_sentence_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PairStore(tmp_path / "store", written_pairs(tmp_path))
    monkeypatch.setattr("restain.data.decoded.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(RestainError, match=r"need 0\.0 GB, but the disk has 0\.0 GB free; .*--store"):
        store.fill()
    assert not list((tmp_path / "store").iterdir())


def test_an_unreadable_picture_stops_the_filling_and_finished_pairs_stay(tmp_path: Path) -> None:
    pairs = written_pairs(tmp_path)
    pairs[1].ihc_path.write_bytes(pairs[1].ihc_path.read_bytes()[:100])
    store = PairStore(tmp_path / "store", pairs)
    with pytest.raises(RestainError, match="ihc1"):
        store.fill()
    assert store.missing() == [1]


@pytest.mark.parametrize(("workers", "processes", "on_disk"), [(0, 1, False), (2, 1, False), (2, 2, True)])
def test_memory_of_all_workers_of_a_node_is_bounded(
    tmp_path: Path, workers: int, processes: int, on_disk: bool
) -> None:
    mib = 2 * 2 * 96 * 96 * 3 * 2 / 2**20
    data = DataRecipe(workers=workers, cache_mib=1)
    pairs = written_pairs(tmp_path) * int(1 / mib)
    found = decoded_pairs(Recipe(data=data), pairs, tmp_path, processes)
    assert isinstance(found, PairStore) == on_disk

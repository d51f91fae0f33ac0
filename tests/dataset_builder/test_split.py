"""Splits: by patient, whatever the table looks like."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.dataset_builder import SlidePair, split_patients
from restain.errors import RestainError
from restain.her2 import Her2Level


def slides(*given_: tuple[str, Her2Level]) -> list[SlidePair]:
    return [SlidePair(Path(f"{i}.he"), Path(f"{i}.ihc"), level, who) for i, (who, level) in enumerate(given_)]


TABLES = st.lists(
    st.tuples(
        st.sampled_from(["P1", "p1", "P1 ", "Ｐ1", "P2", "P3", "Ä", "ä", "P 4", "P  4"]), st.sampled_from(Her2Level)
    ),
    min_size=1,
    max_size=30,
)
SHARES = st.tuples(st.floats(0, 0.45), st.floats(0, 0.45))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(table=TABLES, shares=SHARES, seed=st.integers(0, 5))
def test_no_patient_is_on_both_sides(
    table: list[tuple[str, Her2Level]], shares: tuple[float, float], seed: int
) -> None:
    pairs = slides(*table)
    splits = split_patients(pairs, *shares, seed=seed)
    parts: dict[str, set[str]] = {}
    for pair in pairs:
        # Written in another case, width or with other spaces, it is the same person.
        parts.setdefault(" ".join(pair.patient.replace("Ｐ", "P").lower().split()), set()).add(splits[pair.patient_key])
    assert all(len(found) == 1 for found in parts.values())
    found = Counter(splits.values())
    assert found["train"] >= 1
    if shares[0] == 0:
        assert not found["test"]
    elif len(parts) > 1:
        assert found["test"] >= 1
    if shares[1] > 0 and len(parts) > 2:
        assert found["val"] >= 1
    assert splits == split_patients(pairs[::-1], *shares, seed=seed)


def test_shares_are_met_and_levels_spread() -> None:
    pairs = slides(*((f"P{number}", Her2Level(number % 4)) for number in range(40)))
    splits = split_patients(pairs, test_share=0.2, val_share=0.1)
    assert Counter(splits.values()) == {"train": 28, "val": 4, "test": 8}
    for part, each in (("val", 1), ("test", 2), ("train", 7)):
        levels = Counter(pair.level for pair in pairs if splits[pair.patient_key] == part)
        assert levels == dict.fromkeys(Her2Level, each)


def test_another_seed_gives_another_split() -> None:
    pairs = slides(*((f"P{number}", Her2Level.TWO) for number in range(30)))
    assert len({tuple(split_patients(pairs, seed=seed).values()) for seed in range(4)}) > 1


def test_shares_that_cannot_be() -> None:
    for shares in ((-0.1, 0.1), (0.6, 0.4)):
        with pytest.raises(RestainError, match="shares"):
            split_patients(slides(("P", Her2Level.ONE)), *shares)

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from restain.review import Modality, parse_definition
from restain.review.order import reading_order


def study(pairs: int, alone: int, repeats, seed: int):
    images = [
        {"path": f"{case}-{modality}", "case": case, "modality": modality}
        for case in range(pairs)
        for modality in ("chemical", "virtual")
    ]
    images += [{"path": f"a{case}", "case": f"a{case}", "modality": "virtual"} for case in range(alone)]
    return parse_definition(
        {
            "title": "t",
            "images": images,
            "questions": ["her2"],
            "readers": ["a", "b", "c"],
            "repeats": repeats,
            "seed": seed,
        },
        "s",
    )


@given(
    pairs=st.integers(0, 12),
    alone=st.integers(0, 9),
    repeats=st.floats(0, 1),
    seed=st.integers(0, 99),
    reader=st.integers(0, 2),
)
def test_the_order_is_a_permutation_with_modalities_apart_and_repeats_spaced(pairs, alone, repeats, seed, reader):
    if pairs + alone == 0:
        return
    whole = study(pairs, alone, repeats, seed)
    order = reading_order(whole, reader)
    first = [place.image for place in order if not place.repeat]
    assert sorted(first) == list(range(len(whole.images)))
    again = [place for place in order if place.repeat]
    assert len({place.image for place in again}) == len(again) == round(repeats * len(whole.images))
    parts = [place.part for place in order]
    assert parts == sorted(parts)
    assert parts[0] == 0
    counts = Counter(place.part for place in order if not place.repeat)
    assert abs(counts[0] - counts[1]) <= 1
    where = {place.image: place.part for place in order}
    for images in whole.cases.values():
        own = {where[whole.images.index(image)] for image in images}
        assert len(own) == len(images)
    for part in (0, 1):
        shown = [place for place in order if place.part == part]
        at = {place.image: number for number, place in enumerate(shown) if not place.repeat}
        for number, place in enumerate(shown):
            if place.repeat:
                assert number - at[place.image] >= max(1, len(shown) // 3)


def test_readers_differ_and_the_seed_decides():
    whole = study(10, 0, 0.2, 1)
    orders = [reading_order(whole, reader) for reader in range(3)]
    assert orders[0] == reading_order(study(10, 0, 0.2, 1), 0)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert reading_order(study(10, 0, 0.2, 2), 0) != orders[0]


def test_which_modality_comes_first_is_drawn_half_and_half():
    whole = study(10, 0, 0, 1)
    shares = []
    for reader in range(40):
        first = [place.image for place in reading_order(whole, reader) if place.part == 0]
        shares.append(sum(whole.images[image].modality is Modality.VIRTUAL for image in first))
    assert set(shares) == {5}
    # No place in the order belongs to a modality: over many readers each holds both.
    places = zip(*([place.image for place in reading_order(whole, reader)] for reader in range(40)), strict=True)
    for images in places:
        assert 8 <= sum(whole.images[image].modality is Modality.VIRTUAL for image in images) <= 32

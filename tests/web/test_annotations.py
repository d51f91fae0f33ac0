"""Annotations: what is taken, kept and given back."""

import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.web.annotations import MAX_FEATURES, AnnotationStore, parse_features
from restain.web.database import open_database
from restain.web.errors import RequestError

POINT = {"type": "Feature", "id": "p", "geometry": {"type": "Point", "coordinates": [1.234, 5]}, "properties": {}}
number = st.floats(-1e8, 1e8)
ring = st.lists(st.tuples(number, number).map(list), min_size=3, max_size=6)


def collection(*features: object) -> dict:
    return {"type": "FeatureCollection", "features": list(features)}


@given(st.lists(ring, min_size=1, max_size=3), st.text(max_size=300))
def test_a_polygon_comes_back_to_a_hundredth_of_a_px(rings: list, name: str):
    geometry = {"type": "Polygon", "coordinates": rings}
    (kept,) = parse_features(
        collection({"type": "Feature", "geometry": geometry, "properties": {"name": name, "evil": "x"}})
    )
    for before, after in zip(rings, kept["geometry"]["coordinates"], strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-12, atol=0.0051)
    assert set(kept["properties"]) == {"objectType", "name"}
    assert parse_features(collection(kept)) == [kept]


@pytest.mark.parametrize(
    "wrong",
    [
        *(None, 3, "x", {}, {"features": 1}, {"features": [1]}, {"features": [{}]}),
        collection({"geometry": {"type": "Point", "coordinates": ["a", 1]}}),
        collection({"geometry": {"type": "Point", "coordinates": [True, 1]}}),
        collection({"geometry": {"type": "Point", "coordinates": [1]}}),
        collection({"geometry": {"type": "Point", "coordinates": [1e99, 1]}}),
        collection({"geometry": {"type": "Polygon", "coordinates": [1, 2]}}),
        collection({"geometry": {"type": "Blob", "coordinates": [1, 2]}}),
        json.loads('{"features": [{"geometry": {"type": "Point", "coordinates": [NaN, 1]}}]}'),
    ],
)
def test_what_is_no_geojson_is_refused(wrong):
    with pytest.raises(RequestError) as caught:
        parse_features(wrong)
    assert caught.value.status == 400


def test_too_many_are_refused():
    with pytest.raises(RequestError) as caught:
        parse_features(collection(*[POINT] * (MAX_FEATURES + 1)))
    assert caught.value.status == 413


def test_a_save_outlives_the_store_and_an_older_one_does_not_win(tmp_path):
    store = AnnotationStore(open_database(tmp_path))
    store.save("a", "name", [POINT], 0)
    for stale in (0, 5):
        with pytest.raises(RequestError, match="changed"):
            store.save("a", "name", [], stale)
    store._database.close()
    again = AnnotationStore(open_database(tmp_path))
    assert again.get("a").features == [POINT]
    assert again.save("a", "name", [], 1).version == 2


def test_of_many_saves_at_once_one_wins(tmp_path):
    store, won, lost = AnnotationStore(open_database(tmp_path)), [], []

    def save(number: int) -> None:
        try:
            store.save("a", "name", [{"n": number}], 0)
            won.append(number)
        except RequestError as fault:
            lost.append(fault.status)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), lost) == (1, [409] * 5)
    assert store.get("a").features == [{"n": won[0]}]

"""Measurements of annotations against areas and densities that are known."""

import csv
import io
import json

import httpx
import numpy as np
import pytest

from restain.web.measure import density_measurements, geometry_measurements

HE, VIRTUAL, IHC = "block_1.ome.tiff", "virtual/block_1.ome.tiff", "ihc/her2 §1.ome.tiff"
SQUARE = [[100, 100], [300, 100], [300, 200], [100, 200], [100, 100]]


def test_lengths_and_areas_are_in_micrometres_or_px():
    line = {"type": "LineString", "coordinates": [[0, 0], [30, 40]]}
    area = {"type": "Polygon", "coordinates": [SQUARE]}
    assert geometry_measurements(line, 0.5) == {"Length µm": 25}
    assert geometry_measurements(line, None) == {"Length px": 50}
    assert geometry_measurements(area, 0.5) == {"Area µm^2": 5000, "Perimeter µm": 300}
    assert geometry_measurements({"type": "Point", "coordinates": [1, 2]}, 0.5) == {}


def test_intensity_bins_follow_the_her2_rule():
    od = np.array([0.1, 0.19, 0.2, 0.3, 0.36, 0.61, 0.9, 0.0], np.float32)
    found = density_measurements(od)
    assert [found[f"DAB: {level} area %"] for level in ("0", "1+", "2+", "3+")] == [37.5, 25, 12.5, 25]
    assert found["DAB: Positive area %"] == 62.5
    assert found["DAB: H-score (area)"] == 25 + 2 * 12.5 + 3 * 25
    assert found["DAB: Mean OD"] == pytest.approx(od.mean())


def test_the_density_in_an_annotation_is_measured_and_exported(start, tmp_path):
    running = start(tmp_path)
    try:
        feature = {
            "type": "Feature",
            "id": "a",
            "geometry": {"type": "Polygon", "coordinates": [SQUARE]},
            "properties": {"name": "=1+1", "classification": {"name": "Tumor", "color": [200, 0, 0]}},
        }
        body = {"type": "FeatureCollection", "version": 0, "features": [feature]}
        put = httpx.put(
            f"{running.url}/api/images/{running.id_of(HE)}/annotations", json=body, headers={"Origin": running.url}
        )
        assert put.status_code == 200
        stain = f"?stain={running.id_of(VIRTUAL)}"
        (row,) = running.image(HE, f"measurements{stain}").json()["measurements"]
        # The fixture's density is 0.5 where blue is below 150, and 0 elsewhere.
        share = row["values"]["DAB: 2+ area %"]
        assert 0 < share <= 100
        assert row["values"]["DAB: Mean OD"] == pytest.approx(0.5 * share / 100, abs=0.01)
        assert row["values"]["Area µm^2"] == 5000
        (line,) = csv.DictReader(io.StringIO(running.image(HE, f"measurements.csv{stain}").content.decode("utf-8-sig")))
        assert (line["Name"], line["Class"], line["Stain"]) == ("'=1+1", "Tumor", VIRTUAL)
        assert float(line["DAB: 2+ area %"]) == pytest.approx(share, rel=1e-4)
        (kept,) = json.loads(running.image(HE, f"measurements.geojson{stain}").content)["features"]
        assert kept["properties"]["measurements"] == row["values"]
        # A chemical stain without a density is measured by colour deconvolution; the fixture's is the H&E itself.
        (row,) = running.image(HE, f"measurements?stain={running.id_of(IHC)}").json()["measurements"]
        assert "DAB: Mean OD" in row["values"]
        assert (
            running.image(HE, f"measurements?stain={running.id_of('BCI/HE/train/00001_train_2+.png')}").status_code
            == 404
        )
    finally:
        running.stop()

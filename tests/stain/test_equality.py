"""One way to stain: command line, Python, the browser's worker and a Ray task give the same pixels."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain.bundle import Bundle
from restain.images import read_density
from restain.slides import open_slide, read_image
from restain.stain import Source, StainOptions, load
from restain.stain.cluster import BundleReference, _stain

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "300"}


def command_line(source: Path, out: Path, bundle: Bundle) -> None:
    call = [
        sys.executable,
        "-m",
        "restain",
        "stain",
        source,
        "-o",
        out,
        "--model",
        bundle.path,
        "--mpp",
        "0.5",
        "--dab",
    ]
    subprocess.run(call, check=True, capture_output=True, env=ENVIRONMENT)


def browser(source: Path, out: Path, bundle: Bundle) -> None:
    out.mkdir()
    job: dict[str, Any] = {"source": str(source), "model": str(bundle.path), "region": None, "mpp": 0.5}
    job |= {"dab": True, "everywhere": False, "threads": 1}
    (out / "job.json").write_text(json.dumps(job))
    # Its standard input stays open: it ends when that closes.
    call = [sys.executable, "-m", "restain.web.staining.worker", str(out / "job.json")]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as worker:
        assert worker.stdout is not None
        assert json.loads(worker.stdout.readlines()[-1]) == {"done": True}


def ray_task(source: Path, out: Path, bundle: Bundle) -> None:
    out.mkdir()
    reference = BundleReference(bundle.path, bundle.card.hash)
    outcome, _ = _stain(Source(source), out, reference, StainOptions(mpp=0.5, dab=True))
    assert outcome.outcome == "stained"


@pytest.fixture
def png(picture: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "he.png"
    Image.fromarray(picture[:700, :900]).save(path)
    return path


@pytest.mark.slow
def test_a_picture_has_the_same_pixels_whoever_stains_it(png: Path, bundle: Bundle, tmp_path: Path) -> None:
    result = load(bundle.path).stain(png, mpp=0.5)
    assert result.rgb.shape == (700, 900, 3)
    for way in (command_line, ray_task):
        out = tmp_path / way.__name__
        way(png, out, bundle)
        np.testing.assert_array_equal(read_image(out / "he.png"), result.rgb)
        np.testing.assert_allclose(read_density(out / "he.dab.tif"), result.dab, atol=0.51e-4)
    browser(png, tmp_path / "browser", bundle)
    with open_slide(tmp_path / "browser" / "he.ome.tiff") as opened:
        assert opened.mpp == pytest.approx(0.5)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "browser" / "he.ome.tiff", key=0), result.rgb)
    written = tifffile.imread(tmp_path / "browser" / "he.dab.ome.tiff", key=0)
    np.testing.assert_array_equal(written, tifffile.imread(tmp_path / "command_line" / "he.dab.tif"))


@pytest.mark.slow
def test_a_slide_has_the_same_pixels_whoever_stains_it(slide: Path, bundle: Bundle, tmp_path: Path) -> None:
    model = load(bundle.path)
    here = model.stain_slide(slide, tmp_path / "python", mpp=0.5, dab=True, progress=False)
    expected = tifffile.imread(here.path, key=0)
    for way in (command_line, browser, ray_task):
        out = tmp_path / way.__name__
        way(slide, out, bundle)
        np.testing.assert_array_equal(tifffile.imread(out / here.path.name, key=0), expected)
        np.testing.assert_array_equal(tifffile.imread(out / here.dab.name, key=0), tifffile.imread(here.dab, key=0))
    in_memory = model.stain(slide).rgb.astype(int)
    assert np.abs(in_memory - expected).mean() < 4  # JPEG

"""Real pairs without misalignment: the H&E keeps its pixels, and the IHC is rendered on its cells.

Sections of a real pair show other cells, 5 to 40 px apart, so no loss may compare them pixel by pixel, and a model that learns
from them without such losses draws neither nuclei nor membranes. Here the real IHC says only how much DAB there is around
each cell, averaged over :data:`AROUND_UM`; its cells are rendered as the phantom's are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.data import Pair, open_pairs
from restain.errors import RestainError
from restain.files import make_folder
from restain.images import write_png
from restain.images.nuclei import CellKind, find_nuclei, pixel_of
from restain.optics import dab_density, glass_white
from restain.phantom.cells import Cells
from restain.phantom.from_he import counterstain_of
from restain.phantom.pair import render_ihc
from restain.phantom.render import ihc_appearance, membrane_dab
from restain.progress import Progress

AROUND_UM = 12.0
"""Standard deviation of the Gaussian over which the real DAB around a cell is averaged."""
HAZE_SHARE = 0.2
"""The DAB that this share of a picture lies below is haze of the glass and the unmixing, and is taken off."""
SURE_OD = 0.08
"""Mean DAB around a cell, in OD, from which any but a slender cell is of the tumour, whatever its shape."""
MEAN_OD = (0.01, 0.03, 0.08, 0.30)
"""Mean DAB around a cell, in OD, and for each the rendered membrane: its DAB, and its stained share of the perimeter."""
MEMBRANE = (0.0, 0.15, 0.35, 1.0)
SHARE = (0.0, 0.5, 0.95, 1.0)

Rgb = NDArray[np.uint8]


def render_on_he(he: Rgb, ihc: Rgb, mpp: float, key: tuple[int, int]) -> Rgb:
    """An IHC image for ``he`` whose cells have the DAB that ``ihc`` shows around them; both ``(H, W, 3)``, as the result.

    Args:
        he: the H&E image.
        ihc: the roughly matching IHC image.
        mpp: micrometres per pixel.
        key: seed and index of the random choices.
    """
    rng = np.random.default_rng([*key, 0])
    nuclei = find_nuclei(he, mpp, divide_masses=True)
    around = ndimage.gaussian_filter(dab_density(ihc, glass_white(ihc)), AROUND_UM / mpp)
    around = np.maximum(around - np.quantile(around, HAZE_SHARE), 0)
    dab = around[pixel_of(nuclei.x, nuclei.y, he.shape)]
    sure = (dab > SURE_OD) & (nuclei.kind != CellKind.FIBROBLAST)
    kind = np.where(sure, CellKind.TUMOUR, nuclei.kind).astype(np.int32)
    nuclei = nuclei.with_kind(kind)
    tumour = kind == CellKind.TUMOUR
    completeness = np.where(tumour, np.interp(dab, MEAN_OD, SHARE), 0).astype(np.float32)
    membrane = np.where(tumour, np.interp(dab, MEAN_OD, MEMBRANE), 0).astype(np.float32)
    score = np.where(tumour, np.digitize(dab, MEAN_OD[1:]), 0).astype(np.int32)
    cells = Cells(nuclei.x, nuclei.y, kind, score, nuclei.diameter_um, completeness, membrane)
    stained = membrane_dab(nuclei.tumour_territory(), cells, nuclei.cover, mpp, rng)
    appearance = ihc_appearance(np.random.default_rng([*key, 1]))
    return render_ihc(counterstain_of(nuclei), stained, appearance, mpp, 0.0, key)[0]


def write_rendered_pairs(
    data: Sequence[Path],
    out: Path,
    *,
    mpp: float = 0.46,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> int:
    """Write the pairs of data folders with rendered IHC (:func:`render_on_he`) in the same layout; returns their number.

    Each data folder becomes a folder of its name in ``out``. Pairs that are there are kept, so that the same call resumes.

    Args:
        data: folders of pairs.
        out: folder to write to.
        mpp: micrometres per pixel of the pairs.
        seed: of all randomness.
        progress: called with pairs done and in all.

    Raises:
        RestainError: if a folder is of no known layout, has faults or side-by-side pictures, or a file cannot be written.
    """
    todo = [(root, pair) for root in data for pair in open_pairs(root, val_share=0).pairs]
    if beside := next((pair for _, pair in todo if pair.side_by_side), None):
        raise RestainError(f"{beside.he_path} holds both images; rendering needs H&E and IHC in separate files.")
    for number, (root, pair) in enumerate(todo):
        progress(number, len(todo))
        target = _target(root, pair, out)
        if target[1].is_file() and target[0].is_file():
            continue
        he, ihc = pair.load()
        index = int.from_bytes(hashlib.sha256(pair.name.encode()).digest()[:4], "little")
        for path, image in zip(target, (he, render_on_he(he, ihc, mpp, (seed, index))), strict=True):
            make_folder(path.parent)
            write_png(path, image)
    progress(len(todo), len(todo))
    return len(todo)


def _target(root: Path, pair: Pair, out: Path) -> tuple[Path, Path]:
    base = out / root.resolve().name
    he, ihc = (base / path.relative_to(root).with_suffix(".png") for path in (pair.he_path, pair.ihc_path))
    return he, ihc

"""Stain a region of a slide and write what QuPath imports: the virtual slide, DAB detections and OOD outlines.

``stain_region.groovy`` starts this script; it also runs by itself::

    python stain_region.py he.svs --roi region.geojson -o virtual
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from scipy import ndimage

import restain
from restain.files import write_json
from restain.geometry import Point, Region, Size
from restain.her2 import INTENSE_OD, MODERATE_OD, WEAK_OD
from restain.slides import DensitySlide, read_geojson, to_polygons
from restain.stain import StainedSlide

CLASSES = (
    ("DAB weak", (255, 214, 102), WEAK_OD, MODERATE_OD),
    ("DAB moderate", (230, 140, 60), MODERATE_OD, INTENSE_OD),
    ("DAB intense", (150, 60, 20), INTENSE_OD, np.inf),
)
"""Name, colour, least DAB density and density from which the next class begins, in OD."""

FINEST_UM, LEAST_UM2, BLOCK = 0.9, 10.0, 1024
"""Finest µm per px at which detections are found, their least area, and the px of a block that is read at a time."""


def stain_region(
    image: Path, roi: Path | None, out: Path, *, model: str | None = None, mpp: float | None = None
) -> dict[str, str]:
    """Stain the image inside the outlines of ``roi`` (the whole image without); return and write ``result.json``.

    Raises:
        RestainError: if a file cannot be read or written, or the model gives no DAB density.
    """
    loaded = restain.load(model)
    if not loaded.has_dab:
        raise restain.RestainError(f"{loaded.label} gives no DAB density; take a model with a stain head.")
    region = None if roi is None else tuple(read_geojson(roi))
    stained = loaded.stain_slide(image, out, mpp=mpp, dab=True, roi=region, format="ome-tiff")
    with restain.open_slide(image, mpp=mpp) as slide:
        features = list(detections(stained, slide.mpp))
    found = out / f"{stained.path.name.removesuffix('.ome.tiff')}.dab.geojson"
    write_json(found, {"type": "FeatureCollection", "features": features}, indent=None)
    result = {"notice": restain.NOTICE, "virtual": str(stained.path.resolve()), "detections": str(found.resolve())}
    if stained.ood is not None:
        result["ood"] = str(stained.ood.resolve())
    write_json(out / "result.json", result)
    return result


def detections(stained: StainedSlide, slide_mpp: float) -> Iterator[dict[str, Any]]:
    """Areas of each class as features of QuPath; areas end at the borders of blocks."""
    assert stained.dab is not None
    with DensitySlide(stained.dab) as dab:
        scales = [dab.mpp * dab.size.width / size.width for size in dab.levels]
        level = min((n for n, scale in enumerate(scales) if scale >= FINEST_UM), default=len(scales) - 1)
        mpp, size = scales[level], dab.levels[level]
        for top in range(0, size.height, BLOCK):
            for left in range(0, size.width, BLOCK):
                side = Size(min(BLOCK, size.width - left), min(BLOCK, size.height - top))
                density = dab.read(Region(Point(left, top), side), level)
                yield from block_detections(density, mpp, slide_mpp, (left, top))


def block_detections(
    density: np.ndarray, mpp: float, slide_mpp: float, corner: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """Features of one block, ``(H, W)`` DAB density in OD at ``mpp``, whose first px is ``corner`` of the level."""
    for name, colour, least, below in CLASSES:
        mask = (density >= least) & (density < below)
        labels, _ = ndimage.label(mask)
        for polygon in to_polygons(mask, mpp, mpp):
            area = polygon.area * mpp**2
            if area < LEAST_UM2:
                continue
            inside = polygon.representative_point()
            piece = labels == labels[int(inside.y), int(inside.x)]
            placed = shapely.transform(polygon, lambda points: (points + corner) * (mpp / slide_mpp))
            rings = [np.round(ring.coords, 2).tolist() for ring in (placed.exterior, *placed.interiors)]
            yield {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": rings},
                "properties": {
                    "objectType": "detection",
                    "classification": {"name": name, "color": list(colour)},
                    "measurements": {
                        "Area µm^2": round(area, 2),
                        "Virtual DAB mean OD": round(float(density[piece].mean()), 4),
                    },
                },
            }


def main(arguments: list[str] | None = None) -> int:
    """Run with the arguments of the command line; a fault is one sentence and code 2."""
    parser = argparse.ArgumentParser(description="Stain a region of a slide for QuPath.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--roi", type=Path, help="GeoJSON in px of level 0")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", help="folder of a bundle; default: the shipped one")
    parser.add_argument("--mpp", type=float, help="micrometres per pixel of a slide that states none")
    given = parser.parse_args(arguments)
    try:
        print(stain_region(given.image, given.roi, given.out, model=given.model, mpp=given.mpp))
    except restain.RestainError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

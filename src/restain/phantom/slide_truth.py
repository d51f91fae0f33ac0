"""The truth of a phantom slide pair on disk: ``truth.json``, and the islands as QuPath annotations."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restain.errors import RestainError
from restain.files import write_json
from restain.geometry import Size
from restain.her2 import Her2Level
from restain.phantom.deform import Deformation
from restain.phantom.slide_plan import Fold, Island, Mark, SlidePlan
from restain.slides.geojson import Polygon, write_geojson

TRUTH = "truth.json"
OUTLINES = "truth.geojson"
NOTE = "synthetic tissue of restain's phantom, never real; its HER2 rule is invented"


@dataclass(frozen=True)
class SlideTruth:
    """What is known of a phantom slide pair in ``folder``.

    ``plan`` holds islands, folds, pen marks, dust and deformation; ``parameters`` what the pair was asked for with;
    ``files`` the names of the written slides by what they are (``he``, ``ihc``, ``ihc-registered``, ``dab``);
    ``appearance`` the stain vectors, white points and so on of ``he`` and ``ihc``; ``tumour_shares`` the share of each
    island's area that is tumour, in the mean over the textures that it is made of; ``version`` that of restain.
    """

    folder: Path
    plan: SlidePlan
    parameters: dict[str, Any]
    files: dict[str, str]
    appearance: dict[str, Any]
    tumour_shares: tuple[float, ...]
    version: str

    @property
    def size(self) -> Size:
        """Level 0 of the H&E slide in px."""
        return self.plan.size

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of both slides' level 0."""
        return self.plan.mpp

    @property
    def islands(self) -> tuple[Island, ...]:
        """The pieces of tissue, in px of the H&E slide."""
        return self.plan.islands

    @property
    def deformation(self) -> Deformation:
        """From px of the H&E slide to px of the IHC slide."""
        return self.plan.deformation

    @property
    def level_shares(self) -> dict[Her2Level, float]:
        """Share of the tissue's area at each level that occurs."""
        return self.plan.level_shares

    @property
    def tumour_area_shares(self) -> dict[Her2Level, float]:
        """Share of the tumour's area at each level that occurs."""
        area: dict[Her2Level, float] = {}
        for island, share in zip(self.islands, self.tumour_shares, strict=True):
            area[island.level] = area.get(island.level, 0.0) + island.area_mm2 * share
        total = sum(area.values())
        return {level: value / total for level, value in sorted(area.items())}

    def describe(self) -> str:
        """A few lines for people."""
        shares = ", ".join(f"{level.text} {share:.1%}" for level, share in self.level_shares.items())
        return (
            f"{self.folder}: {', '.join(sorted(self.files.values()))} ({self.size.width}x{self.size.height} px at "
            f"{self.mpp:g} µm)\n{len(self.islands)} islands, tissue {self.plan.tissue_share:.1%} of the slide, of it {shares}\n"
            f"{NOTE}"
        )


def write_slide_truth(truth: SlideTruth) -> None:
    """Write ``truth.geojson`` and then ``truth.json``, which stands for the whole.

    Raises:
        RestainError: if they cannot be written.
    """
    folder, plan = truth.folder, truth.plan
    write_geojson(folder / OUTLINES, [Polygon(island.outline) for island in plan.islands])
    content = {
        "note": NOTE,
        "restain": truth.version,
        "parameters": truth.parameters,
        "files": truth.files,
        "size": [plan.size.width, plan.size.height],
        "mpp": plan.mpp,
        "seed": plan.seed,
        "tissue_share": plan.tissue_share,
        "level_shares": {level.text: share for level, share in truth.level_shares.items()},
        "tumour_area_shares": {level.text: share for level, share in truth.tumour_area_shares.items()},
        "islands": [
            {
                "level": island.level.text,
                "area_mm2": island.area_mm2,
                "tumour_share": share,
                "outline": island.outline.tolist(),
            }
            for island, share in zip(plan.islands, truth.tumour_shares, strict=True)
        ],
        **{name: [_plain(fold) for fold in getattr(plan, name)] for name in ("folds_he", "folds_ihc")},
        **{name: [_plain(mark) for mark in getattr(plan, name)] for name in ("pens", "dust_he", "dust_ihc")},
        "deformation": plan.deformation.as_dict(),
        "appearance": truth.appearance,
    }
    write_json(folder / TRUTH, content)


def read_slide_truth(folder: Path) -> SlideTruth:
    """Read back what :func:`restain.phantom.write_phantom_slide` wrote into ``folder``.

    Raises:
        RestainError: if there is no truth of a phantom slide pair, or it is damaged.
    """
    path = folder / TRUTH
    try:
        values = json.loads(path.read_bytes())
    except OSError:
        raise RestainError(f"{folder} holds no finished phantom slide pair: it has no readable {TRUTH}.") from None
    except ValueError:
        raise RestainError(f"{path} is damaged: it is not valid JSON.") from None
    try:
        plan = SlidePlan(
            size=Size(*values["size"]),
            mpp=float(values["mpp"]),
            seed=int(values["seed"]),
            islands=tuple(
                Island(np.array(i["outline"], float), Her2Level.parse(i["level"]), float(i["area_mm2"]))
                for i in values["islands"]
            ),
            folds_he=_folds(values["folds_he"]),
            folds_ihc=_folds(values["folds_ihc"]),
            pens=_marks(values["pens"]),
            dust_he=_marks(values["dust_he"]),
            dust_ihc=_marks(values["dust_ihc"]),
            deformation=Deformation.from_dict(values["deformation"]),
        )
        return SlideTruth(
            folder=folder,
            plan=plan,
            parameters=dict(values["parameters"]),
            files=dict(values["files"]),
            appearance=dict(values["appearance"]),
            tumour_shares=tuple(float(i["tumour_share"]) for i in values["islands"]),
            version=str(values["restain"]),
        )
    except (LookupError, TypeError, ValueError, RestainError):
        raise RestainError(f"{path} is not the truth of a phantom slide pair.") from None


def _plain(item: Fold | Mark) -> dict[str, Any]:
    return {**asdict(item), "outline": item.outline.tolist()}


def _folds(items: list[dict[str, Any]]) -> tuple[Fold, ...]:
    return tuple(Fold(np.array(i["outline"], float), int(i["island"])) for i in items)


def _marks(items: list[dict[str, Any]]) -> tuple[Mark, ...]:
    found = []
    for item in items:
        red, green, blue = item["density"]
        found.append(Mark(np.array(item["outline"], float), str(item["ink"]), (float(red), float(green), float(blue))))
    return tuple(found)


__all__ = ["NOTE", "OUTLINES", "TRUTH", "SlideTruth", "read_slide_truth", "write_slide_truth"]

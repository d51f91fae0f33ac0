"""The truth of a phantom slide pair on disk: ``truth.json``, and the islands as QuPath annotations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from restain.errors import RestainError
from restain.files import write_json
from restain.her2 import Her2Level
from restain.phantom.slide_plan import SlidePlan
from restain.slides.geojson import Polygon, write_geojson

TRUTH = "truth.json"
OUTLINES = "truth.geojson"
NOTE = "synthetic tissue of restain's phantom, never real; its HER2 rule is invented"
_PLAN = TypeAdapter(SlidePlan)


@dataclass(frozen=True)
class SlideTruth:
    """The truth of the phantom slide pair in ``folder``.

    ``plan`` holds islands, folds, pen marks, dust and deformation; ``parameters`` what the pair was made with; ``files``
    the slides' names (keys ``he``, ``ihc``, ``ihc-registered``, ``dab``); ``appearance`` the stain vectors, white points
    and so on of ``he`` and ``ihc``; ``version`` that of restain.
    """

    folder: Path
    plan: SlidePlan
    parameters: dict[str, Any]
    files: dict[str, str]
    appearance: dict[str, Any]
    version: str

    def describe(self) -> str:
        """Three lines for the command line."""
        plan = self.plan
        shares = ", ".join(f"{level.text} {share:.1%}" for level, share in plan.level_shares.items())
        return (
            f"{self.folder}: {', '.join(sorted(self.files.values()))} ({plan.size.width}x{plan.size.height} px at "
            f"{plan.mpp:g} µm)\n{len(plan.islands)} islands; tissue {plan.tissue_share:.1%} of the slide, of which "
            f"{shares}\n{NOTE}"
        )


def write_slide_truth(truth: SlideTruth) -> None:
    """Write ``truth.geojson``, then ``truth.json``, which marks the pair as complete.

    Raises:
        RestainError: if they cannot be written.
    """
    plan = truth.plan
    write_geojson(truth.folder / OUTLINES, [Polygon(island.outline) for island in plan.islands])

    def texts(shares: dict[Her2Level, float]) -> dict[str, float]:
        return {level.text: share for level, share in shares.items()}

    content = {
        "note": NOTE,
        "restain": truth.version,
        "parameters": truth.parameters,
        "files": truth.files,
        "tissue_share": plan.tissue_share,
        "level_shares": texts(plan.level_shares),
        "tumour_area_shares": texts(plan.tumour_area_shares),
        **_PLAN.dump_python(plan, mode="json"),
        "appearance": truth.appearance,
    }
    write_json(truth.folder / TRUTH, content)


def read_slide_truth(folder: Path) -> SlideTruth:
    """Read what :func:`restain.phantom.write_phantom_slide` wrote into ``folder``.

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
        return SlideTruth(
            folder=folder,
            plan=_PLAN.validate_python(values),
            parameters=dict(values["parameters"]),
            files=dict(values["files"]),
            appearance=dict(values["appearance"]),
            version=str(values["restain"]),
        )
    except (LookupError, TypeError, ValueError, RestainError):
        raise RestainError(f"{path} is not the truth of a phantom slide pair.") from None

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from restain.her2 import Her2Level
from restain.images import write_png

START = datetime(2026, 3, 2, 9, tzinfo=UTC)


def write_study(folder: Path, cases: int = 4, **given: Any) -> Path:
    """A study of images of 8 px (chemical ones: 9) in ``folder``; keys given replace those of the study."""
    folder.mkdir(exist_ok=True)
    images = []
    for case in range(cases):
        for modality, side in (("chemical", 9), ("virtual", 8)):
            path = folder / f"{modality}-{case}.png"
            write_png(path, np.full((side, side, 3), 10 * case + side, np.uint8), {"Title": f"{modality} secret"})
            level = Her2Level(case % 4).text
            images.append({"path": path.name, "case": f"P{case}", "modality": modality, "level": level})
    study = {
        "title": "Trial",
        "images": images,
        "questions": ["her2", "modality", "quality", {"kind": "text", "name": "remarks"}],
        "readers": ["anna", "bo"],
        "seed": 5,
    } | given
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


@pytest.fixture
def study_file(tmp_path):
    return partial(write_study, tmp_path / "material")

"""Algorithm of restain for Grand Challenge: an H&E slide in, a virtual HER2 IHC slide and its DAB density out.

The paths are those of the platform's containers; ``--input`` and ``--output`` replace them for trials.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import restain
from restain.files import write_json

SUFFIXES = (".tif", ".tiff")
"""Grand Challenge stores whole slides as TIFF."""

VIRTUAL, DAB, REPORT = "images/virtual-her2-ihc", "images/her2-dab-density", "virtual-stain-report.json"


def find_slide(folder: Path) -> Path:
    """The one slide among the inputs: that of the sockets in ``inputs.json``, if there is one, else of all folders.

    Raises:
        RestainError: if there is none, or more than one.
    """
    images = folder / "images"
    folders = [images]
    if (sockets := folder / "inputs.json").is_file():
        listed = [one.get("socket") or one.get("interface") for one in json.loads(sockets.read_text(encoding="utf-8"))]
        named = [folder / one["relative_path"] for one in listed if one.get("relative_path", "").startswith("images/")]
        folders = named or folders
    found = sorted({path for one in folders for path in one.rglob("*") if path.suffix.lower() in SUFFIXES})
    if len(found) != 1:
        raise restain.RestainError(f"{images}: expected one slide (.tif), found {len(found)}.")
    return found[0]


def run(source: Path, target: Path, bundle: Path) -> None:
    """Stain the slide in ``source`` and write the outputs of the algorithm into ``target``.

    Raises:
        RestainError: if there is no slide, it cannot be stained, or a file cannot be written.
    """
    slide = find_slide(source)
    model = restain.load(bundle if (bundle / "card.json").is_file() else None)
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target) as work:
        stained = model.stain_slide(slide, work, dab=model.has_dab, format="ome-tiff")
        for folder, path in ((VIRTUAL, stained.path), (DAB, stained.dab)):
            if path is not None:
                (target / folder).mkdir(parents=True, exist_ok=True)
                # The platform takes the suffix .tif only.
                path.replace(target / folder / f"{slide.stem}.tif")
        assert stained.report is not None
        report = json.loads(stained.report.read_text(encoding="utf-8"))
    write_json(target / REPORT, {"notice": restain.NOTICE} | report)


def main(arguments: list[str] | None = None) -> int:
    """Run with the arguments of the command line; a fault is one sentence and code 2."""
    parser = argparse.ArgumentParser(description="restain as an algorithm of Grand Challenge.")
    parser.add_argument("--input", type=Path, default=Path("/input"))
    parser.add_argument("--output", type=Path, default=Path("/output"))
    parser.add_argument("--model", type=Path, default=Path("/opt/ml/model"))
    given = parser.parse_args(arguments)
    try:
        run(given.input, given.output, given.model)
    except restain.RestainError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Options and arguments with the same name and meaning in several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

Data = Annotated[list[Path], Option("--data", help="Folder of pairs (BCI, challenge, AB or MIST layout). Repeatable.")]
Swap = Annotated[bool, Option("--swap", help="Swap the H&E and IHC images of the data.")]
Split = Annotated[str, Option(help="Split: train, val or test.")]
Out = Annotated[Path, Option("-o", "--out", help="Output folder; created if it does not exist.")]
Run = Annotated[Path, Option("-o", "--out", help="Output folder. Re-run with the same folder to resume.")]
Seed = Annotated[int, Option(min=0, help="Random seed; the same seed gives the same result.")]

Model = Annotated[
    str | None,
    Option(
        "--model",
        help="Model: a bundle's folder, a name ('restain models' lists them), or URL.zip#sha256=HEX. "
        "Default: the shipped one, which was trained on the phantom only.",
    ),
]
Her2Classifier = Annotated[
    Path | None,
    Option(
        "--her2-classifier",
        help="HER2 classifier (see train-her2-classifier). Default: the shipped one, trained on the phantom only.",
    ),
]
Device = Annotated[
    str | None, Option(help="Device: cpu, cuda, cuda:1 or mps. Default: CUDA if available, otherwise the CPU.")
]
Engine = Annotated[
    str | None, Option(help="Engine that runs the network (docs/speed.md). Default: auto, the fastest accurate one.")
]

Mpp = Annotated[float | None, Option("--mpp", min=0.01, help="Micrometres per pixel of images that state no scale.")]
OverrideMpp = Annotated[bool, Option("--override-mpp", help="Use the mpp given here even if a file states another.")]

Recipe = Annotated[str, Argument(help="Recipe file, or the name of a shipped recipe.")]
Set = Annotated[list[str] | None, Option("--set", help="Override a recipe value: --set train.steps=100. Repeatable.")]
Store = Annotated[
    Path | None,
    Option(
        help="Folder for decoded pairs that do not fit into memory; trainings can share it. Default: one in OUT, removed at the end."
    ),
]
Accelerator = Annotated[str, Option(help="Accelerator: cpu, cuda, mps or auto.")]


def chosen(**options: Any) -> dict[str, Any]:
    """The options that were set on the command line; the others keep the default of the function they are passed to."""
    return {name: value for name, value in options.items() if value is not None}

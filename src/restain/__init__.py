"""restain: virtual HER2 staining of breast tissue, H&E in and HER2 IHC out.

Research software, never a diagnosis. Networks are loaded when they are used, so that importing the package is cheap.
"""

from typing import TYPE_CHECKING, Any

from restain._version import __version__
from restain.errors import RestainError
from restain.her2 import Her2Level

if TYPE_CHECKING:
    from restain.evaluation import Evaluation, evaluate
    from restain.slides import open_slide
    from restain.stain import Model, StainOptions, StainResult, load
    from restain.training import train

NOTICE = "virtual stain, research use only"
"""Stands wherever a generated image is shown, and in the metadata of every file that holds one."""

__all__ = [
    "NOTICE",
    "Evaluation",
    "Her2Level",
    "Model",
    "RestainError",
    "StainOptions",
    "StainResult",
    "__version__",
    "evaluate",
    "load",
    "open_slide",
    "train",
]

_LAZY = (
    {"open_slide": "restain.slides", "train": "restain.training"}
    | dict.fromkeys(("Evaluation", "evaluate"), "restain.evaluation")
    | dict.fromkeys(("Model", "StainOptions", "StainResult", "load"), "restain.stain")
)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'restain' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)

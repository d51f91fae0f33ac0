"""Staining: H&E in, virtual IHC out, one way for pictures and slides, in memory and into files."""

from restain.ood.detector import Ood
from restain.stain.figures import SlideFigures
from restain.stain.many import Outcome, stain_many, stain_one
from restain.stain.model import Model, load
from restain.stain.options import StainOptions
from restain.stain.provenance import Provenance
from restain.stain.result import StainedSlide, StainResult
from restain.stain.slide import stain_slide
from restain.stain.sources import Source, expand, find_sources, slide_name

__all__ = [
    "Model",
    "Ood",
    "Outcome",
    "Provenance",
    "SlideFigures",
    "Source",
    "StainOptions",
    "StainResult",
    "StainedSlide",
    "expand",
    "find_sources",
    "load",
    "slide_name",
    "stain_many",
    "stain_one",
    "stain_slide",
]

"""Staining: H&E in, virtual IHC out; pictures (:mod:`restain.stain.image`) and whole slides (:mod:`restain.stain.slide`)."""

from restain.stain.image import stain_image, stain_images
from restain.stain.many import Outcome, stain_many, stain_one
from restain.stain.provenance import FAMILIAR, familiar_text, provenance
from restain.stain.restainer import OVERLAP, Restainer, restain_whole, to_prediction
from restain.stain.slide import SlideOptions, StainedSlide, stain_slide
from restain.stain.sources import Source, expand, find_sources, slide_name

__all__ = [
    "FAMILIAR",
    "OVERLAP",
    "Outcome",
    "Restainer",
    "SlideOptions",
    "Source",
    "StainedSlide",
    "expand",
    "familiar_text",
    "find_sources",
    "provenance",
    "restain_whole",
    "slide_name",
    "stain_image",
    "stain_images",
    "stain_many",
    "stain_one",
    "stain_slide",
    "to_prediction",
]

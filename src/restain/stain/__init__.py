"""Staining: H&E in, virtual IHC out, one way for pictures and slides, in memory and into files."""

from restain.ood.detector import Ood as Ood
from restain.stain.figures import SlideFigures as SlideFigures
from restain.stain.many import Outcome as Outcome
from restain.stain.many import stain_many as stain_many
from restain.stain.model import Model as Model
from restain.stain.model import load as load
from restain.stain.options import StainOptions as StainOptions
from restain.stain.provenance import Provenance as Provenance
from restain.stain.result import StainedSlide as StainedSlide
from restain.stain.result import StainResult as StainResult
from restain.stain.slide import stain_slide as stain_slide
from restain.stain.sources import Source as Source
from restain.stain.sources import expand as expand
from restain.stain.sources import find_sources as find_sources
from restain.stain.sources import slide_name as slide_name

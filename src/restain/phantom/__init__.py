"""Synthetic paired tissue with known truth. Never to be presented as real tissue; its HER2 rule is invented.

``cells`` states the rule, ``architecture`` and ``tissue`` grow compartments and cells, ``render`` stains and
photographs them, ``from_he`` finds cells in real H&E pictures, ``pair`` makes one pair, ``dataset`` writes many, ``truth`` reads what is known of one.
"""

from restain.phantom.cells import CellKind, Cells
from restain.phantom.dataset import PhantomSummary, write_phantom
from restain.phantom.deform import Deformation, Distortion
from restain.phantom.noise import misalignment_field
from restain.phantom.pair import PhantomPair, make_pair, pair_from_picture
from restain.phantom.regrow import regrow
from restain.phantom.slide import write_phantom_slide
from restain.phantom.slide_truth import SlideTruth, read_slide_truth
from restain.phantom.tissue import Tissue
from restain.phantom.truth import read_record, read_truth

__all__ = [
    "CellKind",
    "Cells",
    "Deformation",
    "Distortion",
    "PhantomPair",
    "PhantomSummary",
    "SlideTruth",
    "Tissue",
    "make_pair",
    "misalignment_field",
    "pair_from_picture",
    "read_record",
    "read_slide_truth",
    "read_truth",
    "regrow",
    "write_phantom",
    "write_phantom_slide",
]

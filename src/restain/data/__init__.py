"""Paired patches: layouts, reading, checking and augmentation."""

from restain.data.augment import Geometry, augment_pair, draw_geometry, jitter_he, vary_he
from restain.data.check import CheckReport, check_folder
from restain.data.consistency import read_header, require_scale, require_sides
from restain.data.layouts import Layout
from restain.data.pairs import Pair, PairSet, open_pairs
from restain.data.spots import Spots as Spots
from restain.data.spots import read_spots as read_spots
from restain.data.weights import pair_weights

__all__ = [
    "CheckReport",
    "Geometry",
    "Layout",
    "Pair",
    "PairSet",
    "augment_pair",
    "check_folder",
    "draw_geometry",
    "jitter_he",
    "open_pairs",
    "pair_weights",
    "read_header",
    "require_scale",
    "require_sides",
    "vary_he",
]

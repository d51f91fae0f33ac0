"""Paired patches: layouts, reading, checking and augmentation."""

from restain.data.augment import Geometry, augment_pair, draw_geometry, jitter_he, vary_he
from restain.data.check import CheckReport, check_folder
from restain.data.density import read_density, write_density
from restain.data.images import image_size, make_folder, read_rgb, whole_file, write_png, write_rgb
from restain.data.layouts import Layout, Split, recognise
from restain.data.metadata import image_mpp, read_text
from restain.data.pairs import Fault, Pair, PairSet, Scan, open_pairs, scan_pairs
from restain.data.weights import pair_weights

__all__ = [
    "CheckReport",
    "Fault",
    "Geometry",
    "Layout",
    "Pair",
    "PairSet",
    "Scan",
    "Split",
    "augment_pair",
    "check_folder",
    "draw_geometry",
    "image_mpp",
    "image_size",
    "jitter_he",
    "make_folder",
    "open_pairs",
    "pair_weights",
    "read_density",
    "read_rgb",
    "read_text",
    "recognise",
    "scan_pairs",
    "vary_he",
    "whole_file",
    "write_density",
    "write_png",
    "write_rgb",
]

"""Registration: where a point of one section lies on another, differently stained one.

``coarse`` finds the orientation and an affine matrix, ``elastic`` a smooth displacement, both by ``blocks`` of what the
sections have in common (``structure``); ``transform`` is the result, ``files`` keeps it, ``warp`` reads one slide on the
other's grid.
"""

from restain.register.files import read_transform, write_transform
from restain.register.patch import PatchMatch, refine_patch
from restain.register.run import Registration, register_images, register_slides
from restain.register.transform import Folding, Lattice, Transform, identity
from restain.register.warp import slide_of, warp_region

__all__ = [
    "Folding",
    "Lattice",
    "PatchMatch",
    "Registration",
    "Transform",
    "identity",
    "read_transform",
    "refine_patch",
    "register_images",
    "register_slides",
    "slide_of",
    "warp_region",
    "write_transform",
]

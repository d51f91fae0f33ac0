"""Registration of two differently stained sections.

``affine`` finds the orientation and an affine matrix, ``elastic`` a smooth displacement, both by ``block_matching`` of
stain-independent ``features``; ``correlation`` compares it with wrong ones, and
``acceptance`` gives the verdict; ``transform`` is the result, which
``transform_file`` stores and ``warp`` applies.
"""

from restain.registration.acceptance import PairRefusedError, Verdict
from restain.registration.register import Registration, register_images, register_slides
from restain.registration.transform import Lattice, Transform
from restain.registration.transform_file import read_transform, write_transform
from restain.registration.warp import slide_of, warp_region

__all__ = [
    "Lattice",
    "PairRefusedError",
    "Registration",
    "Transform",
    "Verdict",
    "read_transform",
    "register_images",
    "register_slides",
    "slide_of",
    "warp_region",
    "write_transform",
]

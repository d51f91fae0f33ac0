"""Carry points from one picture to another by hisalign; called by ``register.py`` with the Python of hisalign's own environment.

    python hisalign_points.py FIXED.png MOVING.png POINTS.npy OUT.npy MPP

``POINTS`` and ``OUT`` are ``(n, 2)`` (x, y) in px, the first pixel's corner at (0, 0); hisalign, as OpenCV, has its centre there.
``registration_level`` is 0 because flat pictures have no other; all else is hisalign's default, so that it looks at 1024 px of the
longer side.
"""

import sys

import numpy as np
from hisalign import HisAlign


def main() -> None:
    fixed, moving, points, out, mpp = sys.argv[1:]
    model = HisAlign(he_path=fixed, ihc_paths={"IHC": moving}, registration_level=0, mpp=float(mpp)).fit()
    np.save(out, model.warp_xy(np.load(points) - 0.5, marker="IHC", direction="he_to_ihc") + 0.5)


if __name__ == "__main__":
    main()

"""Carry points from one picture to another by hisalign; called by ``register.py`` with the Python of hisalign's own environment.

    python hisalign_points.py FIXED.png MOVING.png POINTS.npy OUT.npy MPP

``POINTS`` and ``OUT`` are ``(n, 2)`` (x, y) in px. ``registration_level`` is 0 because flat pictures have no other; all else is
hisalign's default.
"""

import sys

import numpy as np
from hisalign import HisAlign


def main() -> None:
    fixed, moving, points, out, mpp = sys.argv[1:]
    model = HisAlign(he_path=fixed, ihc_paths={"IHC": moving}, registration_level=0, mpp=float(mpp)).fit()
    np.save(out, np.asarray(model.warp_xy(np.load(points), marker="IHC", direction="he_to_ihc")))


if __name__ == "__main__":
    main()

"""restain: virtual HER2 staining of breast tissue, H&E in and HER2 IHC out.

Research software, never a diagnosis. Networks are loaded when they are used, so that importing the package is cheap.
"""

from restain._version import __version__
from restain.errors import RestainError
from restain.her2 import Her2Level

NOTICE = "virtual stain, research use only"
"""Stands wherever a generated image is shown, and in the metadata of every file that holds one."""

__all__ = ["NOTICE", "Her2Level", "RestainError", "__version__"]

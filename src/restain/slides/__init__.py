"""Whole slides: any scanner's file in, finished tiles on disk, and the pyramid written from them.

Files are read with OpenSlide, tifffile, wsidicom and zarr. `large-image` 1.35, one interface over the same libraries, was
tried: it installs beside the versions pinned here and reads SVS, OME-TIFF with SubIFDs and DICOM from several threads. It
is not used because it resizes every region by itself (two halves differ from the whole by 1 to 2 of 255, and a seamless
result needs them to be the same), opens no folder of DICOM, makes up a magnification where a file has only an mpp, and
opens a slide that is cut off near its end without a word. ``docs/slides.md`` has the trial.
"""

from restain.slides.density import DensitySlide
from restain.slides.geojson import Polygon, rasterize, read_geojson, to_polygons, write_geojson
from restain.slides.mask import TissueMask, glass_windows, tissue_mask, tissue_of, write_tissue
from restain.slides.metadata import read_metadata
from restain.slides.slide import Slide, open_slide, read_image
from restain.slides.source import Level, SlideImage
from restain.slides.store import TileStore
from restain.slides.writer import write_ome_tiff

__all__ = [
    "DensitySlide",
    "Level",
    "Polygon",
    "Slide",
    "SlideImage",
    "TileStore",
    "TissueMask",
    "glass_windows",
    "open_slide",
    "rasterize",
    "read_geojson",
    "read_image",
    "read_metadata",
    "tissue_mask",
    "tissue_of",
    "to_polygons",
    "write_geojson",
    "write_ome_tiff",
    "write_tissue",
]

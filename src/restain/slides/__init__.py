"""Whole slides: any scanner's file in, finished tiles on disk, and the pyramid written from them.

Files are read with OpenSlide, tifffile, wsidicom and zarr. `large-image` 1.35, one interface over the same libraries, was
tried: it installs beside the versions pinned here and reads SVS, OME-TIFF with SubIFDs and DICOM from several threads. It
is not used because it resizes every region by itself (two halves differ from the whole by 1 to 2 of 255, and a seamless
result needs them to be the same), opens no folder of DICOM, makes up a magnification where a file has only an mpp, and
opens a slide that is truncated near its end without an error. ``docs/slides.md`` has the trial.
"""

from restain.slides.density import DensitySlide as DensitySlide
from restain.slides.geojson import Polygon as Polygon
from restain.slides.geojson import rasterize as rasterize
from restain.slides.geojson import read_geojson as read_geojson
from restain.slides.geojson import to_polygons as to_polygons
from restain.slides.geojson import write_geojson as write_geojson
from restain.slides.mask import TissueMask as TissueMask
from restain.slides.mask import glass_windows as glass_windows
from restain.slides.mask import tissue_mask as tissue_mask
from restain.slides.mask import tissue_of as tissue_of
from restain.slides.metadata import read_metadata as read_metadata
from restain.slides.slide import Slide as Slide
from restain.slides.slide import open_slide as open_slide
from restain.slides.slide import read_image as read_image
from restain.slides.store import TileStore as TileStore
from restain.slides.writer import write_ome_tiff as write_ome_tiff

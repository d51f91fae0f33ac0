"""Whole slides: any scanner's file in, finished tiles on disk, and the pyramid written from them.

Files are read with OpenSlide, tifffile, wsidicom and zarr; `large-image`, one interface over these, was not tried to
the end: pip had not resolved its requirements beside the versions pinned here when a trial of 40 s was stopped.
"""

from restain.slides.geojson import Polygon, rasterize, read_geojson, to_polygons, write_geojson
from restain.slides.mask import TissueMask, tissue_mask, tissue_of, write_tissue
from restain.slides.reader import Slide, open_slide
from restain.slides.source import Level
from restain.slides.store import TileStore
from restain.slides.writer import read_metadata, write_ome_tiff

__all__ = [
    "Level",
    "Polygon",
    "Slide",
    "TileStore",
    "TissueMask",
    "open_slide",
    "rasterize",
    "read_geojson",
    "read_metadata",
    "tissue_mask",
    "tissue_of",
    "to_polygons",
    "write_geojson",
    "write_ome_tiff",
    "write_tissue",
]

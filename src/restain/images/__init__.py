"""Picture files: pixels, metadata and DAB densities, in and out."""

from restain.images.density import OD_PER_COUNT, read_density, write_density
from restain.images.metadata import image_mpp, read_text
from restain.images.pictures import (
    IMAGE_SUFFIXES,
    TIFF_MAGIC,
    Rgb,
    check_mode,
    image_size,
    read_rgb,
    tiff_form,
    write_png,
    write_rgb,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "OD_PER_COUNT",
    "TIFF_MAGIC",
    "Rgb",
    "check_mode",
    "image_mpp",
    "image_size",
    "read_density",
    "read_rgb",
    "read_text",
    "tiff_form",
    "write_density",
    "write_png",
    "write_rgb",
]

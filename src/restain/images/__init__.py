"""Picture files: pixels, metadata and DAB density files. Any image is read by :mod:`restain.slides`."""

from restain.images.density import OD_PER_COUNT, read_density, write_density
from restain.images.pictures import (
    IMAGE_SUFFIXES,
    TIFF_MAGIC,
    PictureFacts,
    Rgb,
    check_mode,
    decode_picture,
    file_head,
    no_image,
    picture_facts,
    picture_kind,
    read_text,
    tiff_form,
    write_png,
    write_rgb,
)
from restain.images.scale import Scale, ome_scale, tiff_scale

__all__ = [
    "IMAGE_SUFFIXES",
    "OD_PER_COUNT",
    "TIFF_MAGIC",
    "PictureFacts",
    "Rgb",
    "Scale",
    "check_mode",
    "decode_picture",
    "file_head",
    "no_image",
    "ome_scale",
    "picture_facts",
    "picture_kind",
    "read_density",
    "read_text",
    "tiff_form",
    "tiff_scale",
    "write_density",
    "write_png",
    "write_rgb",
]

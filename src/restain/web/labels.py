"""Label and macro images, which can name a patient: read only where the server was told to show them."""

from __future__ import annotations

import openslide

from restain.images import Rgb
from restain.web.faults import Fault
from restain.web.links import Image
from restain.web.tiles import MOST_PX, as_jpeg

MOST_SIDE = 1600


def label_image(image: Image, which: str) -> bytes:
    """An associated image of a scanner's slide as JPEG, its longer side at most :data:`MOST_SIDE` px.

    Raises:
        Fault: 404, if the slide has none of that name.
    """
    import numpy as np

    try:
        with openslide.OpenSlide(image.path) as slide:
            pictures = slide.associated_images
            if which not in pictures:
                raise Fault(404, "fault.no_label")
            picture = pictures[which]
    except openslide.OpenSlideError:
        raise Fault(404, "fault.no_label") from None
    if picture.width * picture.height > MOST_PX:
        raise Fault(422, "fault.too_large", name=image.path.name, most=MOST_PX // 1_000_000)
    picture.thumbnail((MOST_SIDE, MOST_SIDE))
    rgb: Rgb = np.asarray(picture.convert("RGB"))
    return as_jpeg(rgb, virtual=False)

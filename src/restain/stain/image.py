"""Pictures: an H&E image file in, a virtual IHC image out, with provenance in the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize

from restain.errors import RestainError
from restain.files import make_folder
from restain.geometry import Size
from restain.images import read_text, write_density, write_rgb
from restain.slides import open_slide
from restain.stain.provenance import FAMILIAR, familiar_text, provenance, same_origin, tell
from restain.stain.restainer import Restainer


def stain_images(
    sources: Sequence[Path],
    out: Path,
    restainer: Restainer,
    *,
    mpp: float | None = None,
    dab: bool = False,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[Path]:
    """Restain several images (see :func:`stain_image`); ``progress`` is called with images done, in hundredths.

    Raises:
        RestainError: as :func:`stain_image`, or if ``out`` cannot be made. What was finished before stays.
    """
    make_folder(out)
    results = []
    for number, source in enumerate(sources):

        def report(done: int, total: int, before: int = number) -> None:
            if progress is not None:
                progress(100 * before + 100 * done // total, 100 * len(sources))

        results.append(stain_image(source, out, restainer, mpp=mpp, dab=dab, progress=report, warn=warn))
        report(1, 1)
    return results


def _resized(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    scaled = resize(image, (size.height, size.width), order=1, anti_aliasing=True, preserve_range=True)
    return np.round(scaled).astype(np.uint8)


def stain_image(
    source: Path,
    out: Path,
    restainer: Restainer,
    *,
    mpp: float | None = None,
    dab: bool = False,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Path:
    """Restain one PNG, JPEG or TIFF file into the folder ``out``.

    A TIFF becomes a TIFF, anything else a PNG, under the source's stem and with its size in px. A result that is there
    already, made from the same source by the same bundle, is kept. Where the bundle knows what its training images looked
    like, the metadata's ``familiar`` says whether the source is like them.

    Args:
        source: the H&E image, read by content.
        out: folder of the results; made where needed.
        restainer: the model.
        mpp: micrometres per pixel of the source; without it the file's own, and where it has none the image is taken as
            being at the model's mpp. At another mpp than the model's it is resampled there and back.
        dab: write the DAB density beside it too, as ``NAME.dab.tif`` (uint16, 1e-4 OD per count).
        progress: called with tiles done and tiles in all.
        warn: called with one sentence that names the source where it is unlike the model's training images.

    Returns:
        The path of the virtual image.

    Raises:
        RestainError: if the source is not an 8-bit RGB image, the result cannot be written, or a DAB density is asked of
            a model without a stain head.
    """
    with open_slide(source, mpp) as slide:
        he, mpp = slide.whole(), slide.mpp if slide.has_mpp else None
    target = out / f"{source.stem}{'.tif' if source.suffix.lower() in {'.tif', '.tiff'} else '.png'}"
    dab_target = out / f"{source.stem}.dab.tif"
    if target.resolve() == source.resolve():
        raise RestainError(f"{source}: the result would overwrite its source; choose another output folder.")
    card = restainer.bundle.card
    text = provenance(source, {"bundle": card.name, "bundle_hash": card.hash}) | {"mpp": f"{mpp or card.mpp:g}"}
    # Also where none is given, so that a result on another white is not taken for this one.
    text["white"] = "the model's own" if restainer.white is None else " ".join(f"{v:g}" for v in restainer.white)
    before = read_text(target) if target.is_file() else {}
    judged = restainer.bundle.familiarity is None or before.get(FAMILIAR, "unknown") != "unknown"
    if before and judged and same_origin(text, before) and (not dab or dab_target.is_file()):
        tell(source, before, warn)
        return target

    size = Size(he.shape[1], he.shape[0])
    scale = 1.0 if mpp is None else mpp / card.mpp
    resample = abs(scale - 1) > 0.01
    at_model = _resized(he, size.to_um(scale).to_px(1.0)) if resample else he
    text |= {FAMILIAR: familiar_text(restainer.bundle, [at_model])}
    tell(source, text, warn)
    result = restainer(at_model, progress)
    rgb = _resized(result.rgb, size) if resample else result.rgb
    if dab:
        if result.dab is None:
            raise RestainError(f"{restainer.label}: the model has no stain output, so it gives no DAB density.")
        density = resize(result.dab, he.shape[:2], order=1) if resample else result.dab
        write_density(dab_target, density)
    write_rgb(target, rgb, text, mpp=mpp or card.mpp)
    return target

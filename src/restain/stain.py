"""Staining: an H&E image in, a virtual IHC image out, tile by tile, with provenance in the file.

Images that fit one tile are restained whole. Larger ones are cut into overlapping tiles whose results are blended by
ramps over the overlap. What the attention of every tile reads from is a survey of the whole image, made beforehand
(:mod:`restain.models.survey`), so that a pixel's result does not depend on the tile in which it fell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.transform import resize

from restain import NOTICE, __version__
from restain.bundle import Bundle
from restain.data import image_mpp, read_rgb, read_text, write_density, write_rgb
from restain.errors import RestainError
from restain.geometry import Region, Size, tiles
from restain.models.attention import AttentionState
from restain.models.blocks import channels_last
from restain.models.heads import StainHead
from restain.models.network import StainingNetwork, batch_of
from restain.models.survey import Survey, survey_of
from restain.prediction import Prediction

OVERLAP = 192
"""px that tiles share. Blending leaves out the outer quarter and weighs the next px little, so that convolutions have 96 px
of margin on either side where it counts; ``benchmarks/seams.py`` measures what is left."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}


def _ramp(length: int, overlap: int, at_start: bool, at_end: bool) -> NDArray[np.float32]:
    """Blending weights along one side of a tile: 1 inside, falling to 0 over each overlap that has a neighbour.

    The outer quarter of the overlap has no weight, since convolutions see the tile's border there; the middle half is
    a linear ramp. Weights of two neighbours add up to 1.
    """
    weight = np.ones(length, np.float32)
    if overlap:
        rise = np.clip((np.arange(overlap, dtype=np.float32) + 0.5) / overlap * 2 - 0.5, 0, 1)
        if not at_start:
            weight[:overlap] *= rise
        if not at_end:
            weight[-overlap:] *= rise[::-1]
    return weight


def restain_whole(
    generator: StainingNetwork,
    he: NDArray[np.uint8],
    white: NDArray[np.float32] | None = None,
    context: Sequence[AttentionState] | None = None,
) -> NDArray[np.float32]:
    """Restain an image in one piece, on the generator's device.

    ``(H, W, 3)`` uint8 RGB to ``(H, W, 3 or 4)``: RGB in [0, 1], then the DAB density in OD units where the model has a
    stain head. ``white``, ``(3,)`` in [0, 255], is the glass to render on in place of the model's own; it needs a stain head.
    ``context``: what a survey says of the image that ``he`` is a tile of, for restain's own generator.
    """
    device = next(generator.parameters()).device
    batch = batch_of(he, device)
    options: dict[str, object] = {}
    if white is not None:
        options["white"] = torch.from_numpy(white).to(device)[None] / 255
    if context is not None:
        options["context"] = context
    with torch.inference_mode():
        stained = generator(batch, **options)
    planes = stained.rgb if stained.dab is None else torch.cat([stained.rgb, stained.dab], dim=1)
    result: NDArray[np.float32] = planes[0].permute(1, 2, 0).float().cpu().numpy()
    return result


_SURVEY = Survey()


def to_prediction(planes: NDArray[np.float32]) -> Prediction:
    """What :func:`restain_whole` gives, as an 8-bit image and a DAB map."""
    rgb = np.round(planes[..., :3].clip(0, 1) * 255).astype(np.uint8)
    return Prediction(rgb, planes[..., 3] if planes.shape[2] == 4 else None)


class Restainer:
    """A model bundle as a function from H&E to virtual IHC (a :class:`restain.prediction.Predictor`).

    Args:
        bundle: the model.
        tile: largest side of a tile in px.
        overlap: px that neighbouring tiles share; without it ``OVERLAP``, or half a tile where that is less.
        device: torch device; CUDA where there is one, else the CPU.
        white: ``(3,)`` in [0, 255], the glass of the IHC slide or scanner that is to be imitated; None for the model's own.
        survey: how images of more than one tile are surveyed for the attention; None leaves each tile to itself.

    Raises:
        RestainError: if a white is given for a model without a stain head, or one that is no intensity.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        tile: int = 1024,
        overlap: int | None = None,
        device: str | None = None,
        white: Sequence[float] | None = None,
        survey: Survey | None = _SURVEY,
    ) -> None:
        if white is not None and not (len(white) == 3 and all(0 < v <= 255 for v in white)):
            raise RestainError(f"{', '.join(map(str, white))}: a white is three intensities above 0 and up to 255.")
        if white is not None and not isinstance(getattr(bundle.generator, "head", None), StainHead):
            raise RestainError(
                f"{bundle.path}: the model has no stain output, so it has no white that could be another."
            )
        self.white = None if white is None else np.asarray(white, np.float32)
        self.bundle = bundle
        self.tile = tile
        self.overlap = min(OVERLAP, tile // 2) if overlap is None else overlap
        self.survey = survey
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.generator = channels_last(bundle.generator.to(self.device)).eval()

    @property
    def label(self) -> str:
        """The bundle's name and the start of its hash."""
        return f"{self.bundle.card.name} ({self.bundle.card.hash[:12]})"

    def bands(
        self, he: NDArray[np.uint8], progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Finished rows from top to bottom: ``(first row, (h, W, C))``. Holds one row of tiles at a time."""
        height, width = he.shape[:2]
        regions = list(tiles(Size(width, height), self.tile, self.overlap))
        rows = sorted({r.origin.y for r in regions})
        # An image of one tile surveys itself.
        windows: list[Region] = []
        if self.survey is not None and len(regions) > 1 and self.generator.surveys:
            windows = self.survey.windows(Size(width, height))
        steps = len(windows) + len(regions)

        def report(done: int) -> None:
            if progress is not None:
                progress(done, steps)

        context = survey_of(self.generator, he, windows, report) if windows else None
        total: NDArray[np.float32] | None = None
        weight = np.zeros(0, np.float32)
        for done, region in enumerate(regions):
            report(len(windows) + done)
            planes = restain_whole(self.generator, he[region.slices], self.white, context)
            ramp = self._weight(region, Size(width, height))
            if total is None:
                total = np.zeros((region.size.height, width, planes.shape[2]), np.float32)
                weight = np.zeros((region.size.height, width, 1), np.float32)
            columns = region.slices[1]
            total[:, columns] += planes * ramp
            weight[:, columns] += ramp
            if region.right < width:
                continue
            top = region.origin.y
            following = rows.index(top) + 1
            ready = rows[following] - top if following < len(rows) else region.size.height
            yield top, total[:ready] / weight[:ready]
            total = np.concatenate([total[ready:], np.zeros_like(total[:ready])])
            weight = np.concatenate([weight[ready:], np.zeros_like(weight[:ready])])
        report(steps)

    def _weight(self, region: Region, size: Size) -> NDArray[np.float32]:
        down = _ramp(region.size.height, self.overlap, region.origin.y == 0, region.bottom == size.height)
        across = _ramp(region.size.width, self.overlap, region.origin.x == 0, region.right == size.width)
        weight: NDArray[np.float32] = (down[:, None] * across[None, :])[..., None]
        return weight

    def __call__(self, he: NDArray[np.uint8], progress: Callable[[int, int], None] | None = None) -> Prediction:
        """Restain one image at the model's mpp: ``(H, W, 3)`` uint8 RGB of any size."""
        rgb = np.empty(he.shape, np.uint8)
        dab: NDArray[np.float32] | None = None
        for top, planes in self.bands(he, progress):
            rows = slice(top, top + planes.shape[0])
            band = to_prediction(planes)
            rgb[rows] = band.rgb
            if band.dab is not None:
                dab = np.empty(he.shape[:2], np.float32) if dab is None else dab
                dab[rows] = band.dab
        return Prediction(rgb, dab)


def provenance(source: Path, model: Mapping[str, str]) -> dict[str, str]:
    """What a virtual image says of its origin, as metadata text; ``model`` names what made it from ``source``."""
    return {
        "notice": NOTICE,
        "software": f"restain {__version__}",
        "source": source.name,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        **model,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


FAMILIAR = "familiar"
"""Key of the metadata that says whether the source is like the model's training images: yes, unknown, or no with why."""


def familiar_text(bundle: Bundle, he: NDArray[np.uint8]) -> str:
    """``yes``, ``unknown`` (the bundle does not know its training images) or ``no: `` and a sentence.

    Args:
        bundle: the model.
        he: ``(H, W, 3)`` uint8 RGB at the model's mpp.
    """
    if bundle.familiarity is None:
        return "unknown"
    verdict = bundle.familiarity.judge(he)
    return "yes" if verdict.familiar else f"no: {verdict.reason}"


def _tell(source: Path, text: Mapping[str, str], warn: Callable[[str], None] | None) -> None:
    answer, _, reason = text.get(FAMILIAR, "").partition(": ")
    if warn is not None and answer == "no":
        warn(f"{source}: {reason}")


def expand(images: Sequence[Path]) -> list[Path]:
    """The images named by files and folders (a folder stands for the images directly in it), in order.

    Raises:
        RestainError: if one is missing, a folder has no image, or two share the name that their results would get.
    """
    found: list[Path] = []
    for path in images:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
            if not inside:
                raise RestainError(f"{path}: the folder holds no PNG, JPEG or TIFF image.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise RestainError(f"{path}: there is no such image.")
    by_stem: dict[str, Path] = {}
    for path in found:
        if path.stem in by_stem:
            raise RestainError(
                f"{path} and {by_stem[path.stem]} would both become {path.stem}; stain them into different folders."
            )
        by_stem[path.stem] = path
    return found


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
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise RestainError(f"{out}: the output folder cannot be made ({fault.strerror}).") from None
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
    he = read_rgb(source)
    target = out / f"{source.stem}{'.tif' if source.suffix.lower() in {'.tif', '.tiff'} else '.png'}"
    dab_target = out / f"{source.stem}.dab.tif"
    if target.resolve() == source.resolve():
        raise RestainError(f"{source}: the result would overwrite its source; choose another output folder.")
    mpp = mpp or image_mpp(source)
    card = restainer.bundle.card
    text = provenance(source, {"bundle": card.name, "bundle_hash": card.hash}) | {"mpp": f"{mpp or card.mpp:g}"}
    # Also where none is given, so that a result on another white is not taken for this one.
    text["white"] = "the model's own" if restainer.white is None else " ".join(f"{v:g}" for v in restainer.white)
    fixed = {k: v for k, v in text.items() if k != "created"}
    before = read_text(target) if target.is_file() else {}
    judged = restainer.bundle.familiarity is None or before.get(FAMILIAR, "unknown") != "unknown"
    if before and judged and fixed.items() <= before.items() and (not dab or dab_target.is_file()):
        _tell(source, before, warn)
        return target

    size = Size(he.shape[1], he.shape[0])
    scale = 1.0 if mpp is None else mpp / card.mpp
    resample = abs(scale - 1) > 0.01
    at_model = _resized(he, size.to_um(scale).to_px(1.0)) if resample else he
    text |= {FAMILIAR: familiar_text(restainer.bundle, at_model)}
    _tell(source, text, warn)
    result = restainer(at_model, progress)
    rgb = _resized(result.rgb, size) if resample else result.rgb
    if dab:
        if result.dab is None:
            raise RestainError(f"{restainer.label}: the model has no stain output, so it gives no DAB density.")
        density = resize(result.dab, he.shape[:2], order=1) if resample else result.dab
        write_density(dab_target, density)
    write_rgb(target, rgb, text, mpp=mpp or card.mpp)
    return target

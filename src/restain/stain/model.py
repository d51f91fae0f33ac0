"""A model bundle as what stains: H&E images in, virtual IHC out, in memory or as files."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray

from restain.bundle import Bundle, load_bundle
from restain.data.normalization import HENormalization
from restain.engines import Engine, choose_engine
from restain.errors import RestainError
from restain.geometry import Point, Region, Size
from restain.images import Rgb
from restain.models.blocks import channels_last
from restain.ood.detector import Ood
from restain.prediction import Prediction
from restain.progress import Bar, Progress, Warn, is_live, item
from restain.slides import Polygon, Slide
from restain.slides.slide import LARGEST_PICTURE
from restain.slides.source_picture import ArraySource
from restain.stain.area import rectangle
from restain.stain.inputs import Image, InputImage, open_input
from restain.stain.normalization import normalized_reader
from restain.stain.options import StainOptions
from restain.stain.plan import StainJob
from restain.stain.result import StainedSlide, StainResult, pixels_of, stain_in_memory
from restain.stain.slide import stain_slide


class Model:
    """A loaded bundle that stains, with a copy of the weights of its own. One call at a time; models do not affect each
    other.

    ``device`` is ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; None for CUDA where there is one, else the CPU. ``options``
    are the defaults of all calls. Raises RestainError if there is no such device, or the bundle cannot do what the
    options ask.
    """

    def __init__(self, bundle: Bundle, *, device: str | None = None, options: StainOptions | None = None) -> None:
        self.bundle = bundle
        self.device = device_of(device)
        self.options = options or StainOptions()
        self.generator = channels_last(copy.deepcopy(bundle.generator).to(self.device)).eval()
        self.batch = 1 if self.device.type == "cpu" else 8
        """Windows that go through the network at a time."""
        self._engines: dict[str, Engine] = {}
        self._making = threading.Lock()
        self.check(self.options)

    @property
    def label(self) -> str:
        """The bundle's name and the start of its hash."""
        return f"{self.bundle.card.name} ({self.bundle.card.hash[:12]})"

    @property
    def mpp(self) -> float:
        """Micrometres per pixel at which the model works, and of all its results."""
        return self.bundle.card.mpp

    @property
    def context_px(self) -> int:
        """Side in px of the windows that the network sees at once."""
        return self.bundle.card.context_px

    @property
    def has_dab(self) -> bool:
        """Whether the model gives a DAB density and has a white of its own."""
        return self.generator.stain_head is not None

    @property
    def own_white(self) -> NDArray[np.float32] | None:
        """``(3,)`` RGB in [0, 255] of the glass that the model renders; None without a stain head."""
        head = self.generator.stain_head
        return None if head is None else (255 * torch.sigmoid(head.white.colour.detach().flatten())).cpu().numpy()

    def check(self, options: StainOptions) -> None:
        """Raise RestainError for options that ask a model without a stain head for a DAB density or a white."""
        for wanted, what in ((options.dab, "DAB density"), (options.white is not None, "white of its own")):
            if wanted and not self.has_dab:
                raise RestainError(f"{self.label}: the model has no stain output, so it has no {what}.")

    def engine(self, options: StainOptions) -> Engine:
        """The engine that the options name, made at its first use; RestainError if this machine cannot have it."""
        name = options.engine
        with self._making:
            if name not in self._engines:
                self._engines[name] = choose_engine(self.generator, device=self.device, name=name)
            return self._engines[name]

    @overload
    def stain(self, image: Image, **options: Any) -> StainResult: ...
    @overload
    def stain(self, image: Sequence[Image], **options: Any) -> list[StainResult]: ...
    def stain(
        self,
        image: Image | Sequence[Image],
        *,
        mpp: float | None = None,
        progress: Progress | Literal[False] | None = None,
        warn: Warn | None = None,
        **options: Any,
    ) -> StainResult | list[StainResult]:
        """Stain an image, or each of a list, in memory, at the model's mpp.

        Args:
            image: a path, an open slide, a picture of Pillow, or an array: ``uint8`` RGB ``(H, W, 3)``, grey ``(H, W)``,
                RGBA that is opaque, or floats in [0, 1].
            mpp: micrometres per pixel of images that do not state it. Without any, pictures and arrays are taken as being
                at the model's mpp, and ``provenance.mpp_assumed`` is True.
            progress: called with work done and in all; None for a bar in a terminal or notebook, False for none.
            warn: called with warnings, each a sentence; None for :func:`warnings.warn`.
            **options: of :class:`~restain.stain.options.StainOptions`, in place of the model's.

        Raises RestainError if an image cannot be read or used, a slide states no mpp or holds no tissue, or an option
        is wrong.

        Example:
            >>> model = load()
            >>> he = np.full((128, 64, 3), 240, np.uint8)
            >>> model.stain(he, mpp=model.mpp / 2).rgb.shape
            (64, 32, 3)
        """
        changed = self._options(mpp, options)
        images: list[Any] = list(image) if isinstance(image, list | tuple) else [image]
        results = []
        with shown(progress, "staining") as report:
            for number, one in enumerate(images):
                part = item(report, number, len(images))
                with open_input(one, self.mpp, changed) as opened:
                    size = opened.slide.size_at(self.mpp) if opened.rgb is None and opened.slide.has_mpp else None
                    if size is not None and size.width * size.height > LARGEST_PICTURE:
                        raise RestainError(
                            f"{opened.source}: the result has {size.width} x {size.height} px, too many to be held in "
                            "memory; stain_slide writes it to a file."
                        )
                    results.append(stain_in_memory(StainJob(opened, self, changed, warn or _warned, part)))
                part(1, 1)
        return results if isinstance(image, list | tuple) else results[0]

    def stain_slide(
        self,
        slide: str | Path | Slide,
        out: str | Path,
        *,
        mpp: float | None = None,
        region: Region | tuple[int, int, int, int] | None = None,
        progress: Progress | Literal[False] | None = None,
        warn: Warn | None = None,
        **options: Any,
    ) -> StainedSlide:
        """Stain a slide, or a picture, into files in the folder ``out`` (see :func:`restain.stain.stain_slide`).

        Args:
            slide: a path or an open slide.
            out: made where needed.
            mpp: micrometres per pixel of slides that do not state it.
            region: stain only this, x, y, width and height in level-0 px; outlines of any shape are the option ``roi``.
            **options: see :meth:`stain`.

        Raises RestainError as :func:`restain.stain.stain_slide`.

        Example:
            >>> import tempfile
            >>> from restain.images import write_png
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     write_png(Path(folder) / "he.png", np.full((64, 64, 3), 240, np.uint8), mpp=0.46)
            ...     made = load().stain_slide(f"{folder}/he.png", f"{folder}/out", region=(0, 0, 32, 32))
            >>> made.path.name
            'he.png'
        """
        if region is not None:
            options["roi"] = (*(options.get("roi") or ()), region_outline(region))
        changed = self._options(mpp, options)
        with shown(progress, "staining") as report:
            return stain_slide(slide, out, self, changed, progress=report, warn=warn or _warned)

    def predict(self, he: Rgb) -> Prediction:
        """Stain ``(H, W, 3)`` ``uint8`` RGB at the model's mpp, as :meth:`stain` does, without warnings.

        Example:
            >>> load().predict(np.full((64, 64, 3), 240, np.uint8)).dab.shape
            (64, 64)
        """
        image = InputImage(Slide(ArraySource(he, self.mpp)), Path("array"), False, he)
        job = StainJob(image, self, self.options, lambda sentence: None)
        return Prediction(*pixels_of(job, job.plan(0, 0)))

    def ood_of(
        self, slide: Slide, windows: Sequence[Region], normalization: HENormalization | None = None
    ) -> Ood | None:
        """Whether a slide's ``windows``, normalised, are in distribution; None if the bundle has no OOD detector."""
        detector = self.bundle.ood
        if detector is None:
            return None
        return detector.judge_slide(normalized_reader(slide, self.mpp, normalization), windows)

    def _options(self, mpp: float | None, changes: dict[str, Any]) -> StainOptions:
        changed = self.options.having(**({} if mpp is None else {"mpp": mpp}), **changes)
        self.check(changed)
        return changed


def load(model: str | Path | None = None, *, device: str | None = None, options: StainOptions | None = None) -> Model:
    """Load a model.

    Args:
        model: a bundle's folder, the name of a model at hand, or the address of one; None for the shipped one, which knows
            only synthetic tissue (:func:`restain.model_store.find_model`).

    Raises RestainError if there is no such bundle or device, or the bundle is damaged.

    Example:
        >>> load().mpp
        0.46
    """
    device_of(device)
    return Model(load_bundle(model), device=device, options=options)


def device_of(name: str | None) -> torch.device:
    """The device of a name; None for CUDA where there is one, else the CPU. RestainError if this machine has no such device."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RestainError(f"Unknown device {name!r}; choose from cpu, cuda, cuda:N and mps.") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(
        device.type
    )
    if there is None:
        raise RestainError(f"{name}: restain does not run on this device; choose from cpu, cuda, cuda:N and mps.")
    if (device.index or 0) >= there:
        raise RestainError(f"{name}: this machine has no such device, or PyTorch cannot use it.")
    return device


def region_outline(region: Region | tuple[int, int, int, int]) -> Polygon:
    """The outline of a rectangle in level-0 px, or of x, y, width and height; RestainError if it is empty."""
    if isinstance(region, Region):
        return rectangle(region)
    if len(region) != 4 or min(region[2:]) <= 0:
        raise RestainError("A region is x, y, width and height, the last two above 0 (--region).")
    x, y, width, height = region
    return rectangle(Region(Point(x, y), Size(width, height)))


@contextmanager
def shown(progress: Progress | Literal[False] | None, what: str) -> Iterator[Progress | None]:
    """The callback; for None a bar on standard error, in a terminal or notebook."""
    if progress is not None:
        yield progress or None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not is_live(console):
        yield None
        return
    with Bar(what, console) as bar:
        yield bar.update


def _warned(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)

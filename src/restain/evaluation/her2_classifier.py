"""The HER2 level read from an IHC image, virtual or real: by a network and by the guideline's rule.

The network was trained on real IHC images (``restain train-her2-classifier``; the shipped one on the phantom's), so it asks
whether a virtual image looks like the level. The rule asks whether the DAB is where, and as dark as, the ASCO/CAP
definition wants it; it needs no training and knows nothing of colour. Read them together with the line ``real``: no
virtual image can be read better than the real one, except by luck.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError
from safetensors import SafetensorError
from torch.nn import functional as F

from restain import __version__
from restain.errors import RestainError
from restain.evaluation.image import is_flat
from restain.evaluation.membrane import CellMembranes, cell_membranes, ihc_hematoxylin
from restain.files import make_folder, whole_folder, write_json
from restain.her2 import COMPLETE, Her2Level, cell_levels, level_of_counts
from restain.models.expression import ExpressionClassifier
from restain.optics import DAB, HEMATOXYLIN, glass_white, unit
from restain.recipe import ExpressionRecipe

FORMAT = 1
WEIGHTS = "weights.safetensors"
FACTS = "her2_classifier.json"
DEFAULT = Path(__file__).parent / "default_her2_classifier"

MPP_TOLERANCE = 0.02
"""An image whose pixel differs by more than this share from the classifier's is resampled for the network."""

FAINT_SCALE = 0.1
"""DAB density in OD at which the network's scale for faint staining bends."""

STAINED_OD = 0.06
"""Least DAB density, smoothed as in :mod:`restain.evaluation.membrane`, of a stained place on a cell's outline."""

TILES_AT_ONCE = 4
"""Tiles in one pass of the network: more do not fit the cache, fewer use it badly."""

SPOT = 0.2
"""A cell with a smaller stained share of its outline is not stained: the spot is a neighbour's, or noise."""

SEEN_COMPLETE = 0.8
"""Share of the outline on which rays meet stain where the staining is complete by the guideline."""

SEEN_OD = 0.67
"""What blur and smoothing leave of a membrane's peak density."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The level of one image as each of the two read it."""

    classifier: Her2Level
    rule: Her2Level


class Her2ClassifierFacts(BaseModel):
    """What a classifier says of itself in ``her2_classifier.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    restain_version: str = __version__
    name: str
    data: str
    """The real IHC images that it was trained on, in words."""
    mpp: PositiveFloat
    """Micrometres per pixel that its network sees."""
    tile: PositiveInt
    """Side in px of the tiles that it votes on."""
    width: PositiveInt
    """Channels of the small backbone's first stage."""
    steps: PositiveInt
    seed: int
    accuracy: float | None
    """Share of right levels on the ``images`` real validation images, which it was not trained on."""
    images: int
    licence: str = "Apache-2.0"
    created: str
    hash: str = ""
    """SHA-256 over the weights and this file without this line."""


class Her2Classifier:
    """Reads the HER2 level of IHC images; made by :func:`load_her2_classifier`."""

    def __init__(self, facts: Her2ClassifierFacts, network: ExpressionClassifier) -> None:
        self.facts = facts
        self.network = network.eval()

    @property
    def label(self) -> str:
        """The classifier's name and the beginning of its hash."""
        return f"{self.facts.name} ({self.facts.hash[:12]})"

    def read(self, rgb: NDArray[np.uint8], dab: NDArray[np.float32], mpp: float) -> Reading:
        """Read one image both ways.

        Args:
            rgb: ``(H, W, 3)`` 8-bit RGB.
            dab: ``(H, W)`` DAB density in OD: a model's own map, or by colour deconvolution.
            mpp: micrometres per pixel of both.

        Raises:
            ValueError: if the two differ in size.
        """
        if rgb.shape[:2] != dab.shape:
            raise ValueError(f"image {rgb.shape[:2]} and DAB map {dab.shape} must be of the same size")
        vote = level_probabilities(self.network, rgb, mpp / self.facts.mpp, self.facts.tile)
        return Reading(
            classifier=Her2Level(int(vote.argmax())),
            rule=rule_level(dab, ihc_hematoxylin(rgb, glass_white(rgb)), mpp),
        )


def rule_level(dab: NDArray[np.float32], hematoxylin: NDArray[np.float32], mpp: float) -> Her2Level:
    """The level by :func:`restain.her2.asco_cap_level` of the membranes that are seen in an IHC image.

    Which nuclei are the tumour's cannot be seen in IHC alone, so all nuclei count, and a patch with little tumour may
    be read too low. What rays and blur take from completeness and density is made up for by :data:`SEEN_COMPLETE` and
    :data:`SEEN_OD`.

    Args:
        dab: ``(H, W)`` DAB density in OD.
        hematoxylin: ``(H, W)`` hematoxylin density in OD of the same image.
        mpp: micrometres per pixel.
    """
    return level_of_cells(cell_membranes(dab, hematoxylin, mpp, STAINED_OD))


def level_of_cells(cells: CellMembranes) -> Her2Level:
    """:func:`rule_level` of cells that were measured with the threshold :data:`STAINED_OD`."""
    return level_of_counts(pattern_counts(cells))


def pattern_counts(cells: CellMembranes) -> tuple[int, int, int, int]:
    """How many cells show the pattern of each level (:func:`restain.her2.cell_levels`), measured as for :func:`level_of_cells`."""
    share = np.where(cells.completeness < SPOT, 0.0, cells.completeness * (COMPLETE / SEEN_COMPLETE))
    levels = cell_levels(np.minimum(share, 1.0), cells.dab_od / SEEN_OD)
    zero, one, two, three = np.bincount(levels, minlength=len(Her2Level)).tolist()
    return zero, one, two, three


def level_probabilities(
    network: ExpressionClassifier, rgb: NDArray[np.uint8], scale: float, tile: int
) -> NDArray[np.float64]:
    """Probability of each level, ``(4,)``: the mean of the network's over tiles that cover the image evenly.

    Intensities are taken relative to the image's own glass, so that its tint says nothing of the level.

    Args:
        network: in evaluation mode.
        rgb: ``(H, W, 3)`` 8-bit RGB.
        scale: micrometres per pixel of the image by those of the network: above 1 the image is enlarged.
        tile: side of the tiles in px of the network; a smaller image is one tile.
    """
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None] / torch.from_numpy(quiet_white(rgb)).view(3, 1, 1)
    if abs(scale - 1) > MPP_TOLERANCE:
        size = [max(16, round(side * scale)) for side in rgb.shape[:2]]
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    height, width = pixels.shape[-2:]
    tiles = [
        pixels[..., top : top + tile, left : left + tile]
        for top in _starts(height, tile)
        for left in _starts(width, tile)
    ]
    # Tiles of one colour are equal.
    together = torch.cat(tiles[:1] if is_flat(rgb) else tiles)
    with torch.inference_mode():
        found = [
            network(network_input(part)).logits.double().softmax(1) for part in torch.split(together, TILES_AT_ONCE)
        ]
    return torch.cat(found).mean(dim=0).numpy()


def quiet_white(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """:func:`restain.optics.glass_white` of means over 4x4 px: ``(H, W, 3)`` 8-bit RGB to ``(3,)`` in [1, 255].

    The brightest pixels of a noisy image are brighter than its glass, by more where one channel is the darkest
    throughout; against 1+, a hundredth matters. Virtual images have no noise, so that the two would differ.
    """
    height, width = (side - side % 4 for side in rgb.shape[:2])
    if min(height, width) == 0:
        return glass_white(rgb)
    # Sums of slices are ten times as fast as a mean over two axes.
    rows = rgb[:height].reshape(height // 4, 4, -1, 3)
    lines = rows[:, 0].astype(np.uint16) + rows[:, 1] + rows[:, 2] + rows[:, 3]
    columns = lines[:, :width].reshape(height // 4, width // 4, 4, 3)
    blocks = columns[:, :, 0] + columns[:, :, 1] + columns[:, :, 2] + columns[:, :, 3]
    return glass_white(blocks.astype(np.float32) / 16)


def network_input(light: torch.Tensor) -> torch.Tensor:
    """What the network sees of ``(N, 3, H, W)`` intensities relative to glass: three channels of stain, in [0, 1].

    Hematoxylin density up to 1 OD, DAB density on a scale that saturates above :data:`FAINT_SCALE`, which makes faint
    staining as plain as its meaning for the level is, and DAB density up to 1 OD. The saturating scale is linear and
    signed about zero, so that noise, and the blur that takes it away, do not shift its mean. The result is channels_last.
    """
    inverse = torch.from_numpy(np.linalg.pinv(unit(np.stack([HEMATOXYLIN, DAB]))).astype(np.float32))
    density = torch.einsum("nchw,cs->nshw", -torch.log10(light.clamp(min=0.01)), inverse)
    hematoxylin, dab = density[:, :1], density[:, 1:]
    channels = (hematoxylin.clamp(0, 1), torch.tanh(dab / FAINT_SCALE) / 2 + 0.5, dab.clamp(0, 1))
    return torch.cat(channels, dim=1).contiguous(memory_format=torch.channels_last)


def _starts(length: int, tile: int) -> list[int]:
    """Where tiles begin along a side so that the fewest of them reach from end to end, evenly."""
    count = -(-length // tile)
    return [0] if count == 1 else [round(k * (length - tile) / (count - 1)) for k in range(count)]


def require_her2_classifier_folder(path: Path) -> None:
    """See that a classifier can be written to ``path``, and make the folder that it will lie in.

    Raises:
        RestainError: if that folder cannot be made, or ``path`` is there and is not a classifier.
    """
    if path.exists() and not (path / FACTS).is_file():
        raise RestainError(f"{path}: is there already and is not a classifier; it is left as it is.")
    make_folder(path.parent)


def save_her2_classifier(path: Path, facts: Her2ClassifierFacts, network: ExpressionClassifier) -> Her2ClassifierFacts:
    """Write a classifier's folder, weights in half precision; an older classifier there is replaced only by a whole new one.

    Raises:
        RestainError: if the folder cannot be written, or ``path`` is there and is not a classifier.
    """
    require_her2_classifier_folder(path)
    weights = safetensors.torch.save({k: v.detach().half().contiguous() for k, v in network.state_dict().items()})
    facts = facts.model_copy(update={"hash": _hash(weights, facts)})
    with whole_folder(path) as partial:
        (partial / WEIGHTS).write_bytes(weights)
        write_json(partial / FACTS, facts.model_dump(), indent=2)
    return facts


def load_her2_classifier(path: Path | None = None) -> Her2Classifier:
    """Load a classifier; without a path, the one that is shipped with restain, which knows the phantom only.

    Raises:
        RestainError: if ``path`` is no classifier, it was changed or damaged, or a newer restain wrote it.
    """
    path = DEFAULT if path is None else path
    if not (path / FACTS).is_file():
        raise RestainError(f"{path}: is not a classifier (a folder with {FACTS} and {WEIGHTS}).")
    try:
        values = json.loads((path / FACTS).read_text(encoding="utf-8"))
        written = int(values["format"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RestainError(f"{path / FACTS}: the description of the classifier is damaged.") from None
    if written > FORMAT:
        raise RestainError(
            f"{path}: the classifier has format {written}, this restain reads up to {FORMAT}: upgrade it."
        )
    try:
        facts = Her2ClassifierFacts.model_validate(values)
        weights = (path / WEIGHTS).read_bytes()
    except ValidationError as fault:
        key = ".".join(str(part) for part in fault.errors()[0]["loc"])
        raise RestainError(f"{path / FACTS}: the description of the classifier is damaged at '{key}'.") from None
    except OSError:
        raise RestainError(f"{path / WEIGHTS}: the classifier's weights cannot be read.") from None
    if _hash(weights, facts) != facts.hash:
        raise RestainError(f"{path}: the classifier was changed or damaged, for its hash does not match; get it anew.")
    network = her2_classifier_network(facts.width)
    try:
        network.load_state_dict(safetensors.torch.load(weights))
    except (SafetensorError, RuntimeError):
        raise RestainError(f"{path / WEIGHTS}: the weights do not fit the description of the classifier.") from None
    return Her2Classifier(facts, network)


def her2_classifier_network(width: int) -> ExpressionClassifier:
    """The classifier's network: the expression classifier with the small backbone, here on IHC."""
    return ExpressionClassifier(ExpressionRecipe(backbone="small", width=width, pretrained=False))


def _hash(weights: bytes, facts: Her2ClassifierFacts) -> str:
    text = json.dumps(facts.model_dump(exclude={"hash"}), sort_keys=True)
    return hashlib.sha256(weights + text.encode()).hexdigest()

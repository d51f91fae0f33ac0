"""The model bundle: one folder with ``weights.safetensors`` and ``card.json``, all that staining needs.

The card's ``hash`` covers the weights and every other line of the card. Weights are never pickled.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from restain import NOTICE, __version__
from restain.data.normalization import describe_normalization
from restain.errors import RestainError
from restain.files import whole_folder, write_json
from restain.models.build import build_generator
from restain.models.network import StainingNetwork
from restain.ood.detector import OodDetector, load_ood_detector, save_ood_detector
from restain.recipe import Recipe, parse_recipe

FORMAT = 1
"""Version of the bundle's format; raised when an older restain cannot read it any more."""

METHOD = "U-Net, FAVOR+ residual attention at every skip connection, HER2 label feature"
"""The architecture as cards name it; the card's recipe says which parts are switched off."""

WEIGHTS = "weights.safetensors"
CARD = "card.json"
OOD = "ood.safetensors"
"""Optional: the OOD detector (:mod:`restain.ood.detector`), tied to the bundle by its hash."""

DEFAULT = Path(__file__).parent / "default_bundle"


class Card(BaseModel):
    """Description of a bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    restain_version: str = __version__
    name: str
    architecture: str
    mpp: float
    normalisation: str = "RGB uint8 / 255; networks map to [-1, 1] inside themselves"
    normalization: dict[str, Any] | None = None
    """Normalisation of the H&E before the network, with its targets (:mod:`restain.data.normalization`); None: there is none."""
    recipe: dict[str, Any]
    data: str
    """What the model was trained on, in words."""
    licence: str = "Apache-2.0"
    step: int
    context_px: int = 512
    """Side in px of the windows that staining shows to the network, and of the largest crops of training."""
    figures: dict[str, float | None]
    """Figures measured on validation (``val_``) or fresh test pairs (``test_``), never on training data."""
    created: str
    notice: str = NOTICE
    hash: str = ""
    """SHA-256 over the weights file and the card without this line, in hexadecimal."""


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: the card, the recipe in it, and the generator in evaluation mode on the CPU."""

    path: Path
    card: Card
    recipe: Recipe
    generator: StainingNetwork
    ood: OodDetector | None = None
    """None in a bundle without one."""


def _hash(weights: bytes, card: Card) -> str:
    # A card of the time before these lines was hashed without them.
    left_out = {"hash"} | ({"context_px", "normalization"} - card.model_fields_set)
    text = json.dumps(card.model_dump(exclude=left_out), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(weights + text.encode()).hexdigest()


def save_bundle(
    path: Path,
    generator: StainingNetwork,
    recipe: Recipe,
    *,
    step: int,
    data: str,
    figures: dict[str, float | None],
    licence: str = "Apache-2.0",
    context_px: int = 512,
) -> Card:
    """Write a bundle; an older one under the same path is replaced only when the new one is whole.

    Raises:
        RestainError: if the folder cannot be written, or ``path`` is there and is not a bundle.
    """
    if path.exists() and not (path / CARD).is_file():
        raise RestainError(f"{path}: is there already and is not a bundle; it is left as it is.")
    state = {k: v.detach().to("cpu").contiguous().clone() for k, v in generator.state_dict().items()}
    weights = safetensors.torch.save(state)
    card = Card(
        name=recipe.name,
        architecture=METHOD if recipe.peer is None else f"peer method: {recipe.peer.kind}",
        mpp=recipe.mpp,
        normalization=describe_normalization() if recipe.data.normalization else None,
        recipe=recipe.model_dump(mode="json"),
        data=data,
        licence=licence,
        step=step,
        context_px=context_px,
        figures=figures,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    card = card.model_copy(update={"hash": _hash(weights, card)})
    with whole_folder(path) as partial:
        (partial / WEIGHTS).write_bytes(weights)
        write_json(partial / CARD, card.model_dump(), indent=2)
    return card


def read_card(path: Path) -> Card:
    """Read a bundle's card without loading its weights.

    Raises:
        RestainError: if ``path`` is no bundle, its card is damaged, or a newer restain wrote it.
    """
    if not path.is_dir() or not (path / CARD).is_file():
        raise RestainError(f"{path}: is not a model bundle (a folder with {CARD} and {WEIGHTS}).")
    try:
        values = json.loads((path / CARD).read_text(encoding="utf-8"))
        written = int(values["format"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RestainError(f"{path / CARD}: the model card is damaged.") from None
    if written > FORMAT:
        raise RestainError(
            f"{path}: the bundle was written by restain {values.get('restain_version', '?')} in format {written}; "
            f"this is restain {__version__}, which reads up to format {FORMAT}: upgrade restain to use it."
        )
    try:
        return Card.model_validate(values)
    except ValidationError as fault:
        key = ".".join(str(part) for part in fault.errors()[0]["loc"])
        raise RestainError(f"{path / CARD}: the model card is damaged at '{key}'.") from None


def load_bundle(path: Path | None = None) -> Bundle:
    """Load a bundle; without a path, the default that is shipped with restain.

    Raises:
        RestainError: if ``path`` is no bundle, its hash does not match, its weights do not fit its recipe, or a newer
            restain wrote it; or if its OOD detector is damaged or another bundle's.
    """
    path = DEFAULT if path is None else path
    card = read_card(path)
    try:
        weights = (path / WEIGHTS).read_bytes()
    except OSError:
        raise RestainError(f"{path / WEIGHTS}: the bundle's weights cannot be read.") from None
    if _hash(weights, card) != card.hash:
        raise RestainError(
            f"{path}: the bundle's hash does not match its card, so its weights or card were changed or damaged; "
            "get it anew."
        )
    recipe = parse_recipe(card.recipe, str(path / CARD))
    generator = build_generator(recipe)
    try:
        generator.load_state_dict(safetensors.torch.load(weights))
    except (SafetensorError, RuntimeError):
        raise RestainError(f"{path / WEIGHTS}: the weights do not fit the recipe in the card.") from None
    if card.normalization not in (None, describe_normalization()):
        raise RestainError(f"{path}: the bundle's normalisation of the H&E is not that of this restain; train it anew.")
    ood = load_ood_detector(path / OOD, card.hash) if (path / OOD).is_file() else None
    return Bundle(path, card, recipe, generator.eval(), ood)


def add_ood_detector(path: Path, ood: OodDetector) -> None:
    """Add an OOD detector to a bundle; RestainError if ``path`` is no bundle or the file cannot be written."""
    save_ood_detector(path / OOD, ood, read_card(path).hash)

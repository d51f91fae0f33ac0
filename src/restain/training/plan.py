"""What a training will take on this machine, from a few steps of each stage, and what stands in its way."""

from __future__ import annotations

import hashlib
import resource
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from restain.data import Pair, PairSet
from restain.data.decoded import PairStore, decoded_bytes
from restain.data.layouts import SPLITS
from restain.data.normalization import picture_normalizer
from restain.models.build import build_generator
from restain.progress import Progress
from restain.recipe import Recipe
from restain.training.batches import Batch, Crops, batches, decoded_pairs
from restain.training.expression import ExpressionStage
from restain.training.peers import second_stage
from restain.training.prepare import prepare, trains_expression
from restain.training.run import Stage
from restain.training.validate import validate

STEPS = 10
"""Steps that are measured of each stage."""
WARM_UP = 2
"""Steps before them, which allocate memory and choose kernels."""
STARVING = 0.1
"""Share of a step spent waiting for crops from which on the loader is too slow."""
CHECKPOINT_COPIES = 4
"""Networks' sizes in a checkpoint: weights, Adam's two moments, averaged weights."""
MIB, GB = 2**20, 1e9


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage as measured."""

    name: str
    steps: int
    seconds_per_step: float
    shares: dict[str, float]
    """Share of a step's time by part: ``loader`` (waiting for crops), the networks by name, ``optimiser``."""

    @property
    def hours(self) -> float:
        return self.steps * self.seconds_per_step / 3600

    def describe(self) -> str:
        parts = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        return f"{self.name}: {1 / self.seconds_per_step:.2f} steps/s, {self.steps} steps, {self.hours:.1f} h ({parts})"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training on this machine takes; hours are estimates from a few steps."""

    pairs: str
    stages: tuple[StagePlan, ...]
    validation_hours: float
    decoding_hours: float
    memory_gib: float
    """Peak of this process, without loader workers."""
    device_gib: float | None
    """Peak of the accelerator's memory; None on a CPU."""
    loader_gib: float
    """Most that loader workers keep of decoded pairs, all together."""
    disk_gb: float
    free_gb: float
    warnings: tuple[str, ...] = ()
    begun: datetime = field(default_factory=datetime.now)

    @property
    def hours(self) -> float:
        return sum(stage.hours for stage in self.stages) + self.validation_hours + self.decoding_hours

    def describe(self) -> str:
        done = self.begun + timedelta(hours=self.hours)
        memory = f"memory: {self.memory_gib:.1f} GiB of the process, {self.loader_gib:.1f} GiB of decoded pairs at most"
        memory += "" if self.device_gib is None else f", {self.device_gib:.1f} GiB on the device"
        return "\n".join(
            [
                self.pairs,
                *(stage.describe() for stage in self.stages),
                f"decoding: {self.decoding_hours:.1f} h; validation: {self.validation_hours:.1f} h",
                memory,
                f"disk: {self.disk_gb:.1f} GB needed, {self.free_gb:.1f} GB free",
                f"done: {done:%Y-%m-%d %H:%M} if started now ({self.hours:.1f} h, estimated from {STEPS} steps per stage)",
                *(f"warning: {warning}" for warning in self.warnings),
            ]
        )


class _Laps:
    """Seconds by part of a step; the time since the last mark goes to the part that is named."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def mark(self, part: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now

    def watch(self, stage: Stage) -> None:
        """Mark when a network has run forward, and before and after each optimiser."""
        for name, (network, optimiser) in stage.networks.items():
            network.register_forward_hook(lambda *_, part=name: self.mark(part))
            adam = optimiser.optimizer
            adam.register_step_pre_hook(lambda *_, part=name: self.mark(part))
            adam.register_step_post_hook(lambda *_: self.mark("optimiser"))


def plan(
    recipe: Recipe,
    data: Sequence[Path],
    out: Path,
    *,
    accelerator: str = "auto",
    store: Path | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Try a few steps of each stage of a training on one device of this machine; nothing of it is kept.

    Args:
        recipe: of the training.
        data: folders of pairs.
        out: folder of the training, whose disk must be large enough; it need not exist.
        accelerator: as :func:`restain.training.train`.
        store: as there.
        progress: called with steps done and in all.

    Raises:
        RestainError: as :func:`restain.training.train` before its first step.
    """
    prepared = prepare(recipe, data, accelerator=accelerator)
    training, held_out = prepared.pairs.split("train"), prepared.pairs.split("val")
    fabric = prepared.devices.fabric(recipe.train)
    fabric.launch()
    torch.manual_seed(recipe.seed)
    generator = build_generator(recipe)
    stages: list[tuple[Callable[[], Stage], int, int]] = []
    expression = generator.expression
    if expression is not None and trains_expression(recipe, training):
        first = recipe.expression
        stages.append((lambda: ExpressionStage(fabric, recipe, expression), first.crop, first.batch))
    stages.append((lambda: second_stage(fabric, recipe, generator), recipe.data.crop, recipe.data.batch))
    place = _existing(store or out)
    found: list[StagePlan] = []
    with TemporaryDirectory(prefix=".restain-plan-", dir=place) as scratch:
        decoded = decoded_pairs(recipe, training, Path(scratch))
        steps = len(stages) * (WARM_UP + STEPS)
        used = _needed(recipe, len(training), max(crop_batch for _, _, crop_batch in stages))
        decoding = 0.0
        if isinstance(decoded, PairStore):
            began = time.perf_counter()
            decoded = PairStore(Path(scratch), training[:used], decoded.normalize, "plan")
            decoded.fill()
            decoding = (time.perf_counter() - began) / used * len(training) / 3600
        for make, crop, batch in stages:
            stage = make()
            crops = Crops(decoded, crop, recipe.data.augment, recipe.seed, None, recipe.data.mix)
            feed = batches(crops, stop=WARM_UP + STEPS, batch=batch, workers=recipe.data.workers, device=fabric.device)
            done = len(found) * (WARM_UP + STEPS)
            found.append(_measured(stage, feed, fabric.device, done, steps, progress))
        kept_in_store = isinstance(decoded, PairStore)
    validating = 0.0
    if held_out and recipe.train.validate_every:
        began = time.perf_counter()
        validate(generator, held_out[:1], recipe.mpp, picture_normalizer(recipe))
        pairs = min(len(held_out), recipe.train.validate_pairs or len(held_out))
        times = sum(stage.steps / recipe.train.validate_every for stage in found)
        validating = (time.perf_counter() - began) * pairs * times / 3600
    weights = sum(parameter.nbytes for parameter in generator.parameters())
    store_bytes = sum(map(decoded_bytes, training))
    device = fabric.device
    draft = Plan(
        pairs=prepared.pairs.describe(),
        stages=tuple(found),
        validation_hours=validating,
        decoding_hours=decoding,
        memory_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else MIB),
        device_gib=torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
        loader_gib=0.0 if kept_in_store else store_bytes * max(1, recipe.data.workers) / 2**30,
        disk_gb=(store_bytes * kept_in_store + CHECKPOINT_COPIES * weights) / GB,
        free_gb=shutil.disk_usage(place).free / GB,
    )
    return _with_warnings(draft, prepared.pairs, recipe.data.workers)


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _needed(recipe: Recipe, training: int, batch: int) -> int:
    """Pairs that are decoded for the trial: as many as its crops are cut from, at most 64."""
    return min(training, 64, (WARM_UP + STEPS) * batch)


def _measured(
    stage: Stage,
    feed: Iterator[Batch],
    device: torch.device,
    done: int,
    total: int,
    progress: Progress | None,
) -> StagePlan:
    laps = _Laps(device)
    laps.watch(stage)
    began = 0.0
    # The last steps of the stage, where every network takes part.
    for number in range(stage.steps - WARM_UP - STEPS, stage.steps):
        if number == stage.steps - STEPS:
            laps.mark("loader")
            laps.seconds.clear()
            began = time.perf_counter()
        batch = next(feed)
        laps.mark("loader")
        stage.step(max(number, 0), batch)
        laps.mark("optimiser")
        if progress is not None:
            progress(done + number + 1 - (stage.steps - WARM_UP - STEPS), total)
    seconds = time.perf_counter() - began
    return StagePlan(
        stage.name, stage.steps, seconds / STEPS, {part: value / seconds for part, value in laps.seconds.items()}
    )


def _with_warnings(found: Plan, pairs: PairSet, workers: int) -> Plan:
    warnings = [
        f"the loader starves the device in the stage '{stage.name}': {stage.shares['loader']:.0%} of the time is waiting "
        f"for crops; raise data.workers (now {workers})."
        for stage in found.stages
        if stage.shares["loader"] > STARVING
    ]
    if found.disk_gb > found.free_gb:
        warnings.append(
            f"the disk is too small: {found.disk_gb:.1f} GB are needed, {found.free_gb:.1f} GB are free; "
            "choose another folder (--out, --store)."
        )
    return replace(found, warnings=(*warnings, *leaks(pairs)))


def leaks(pairs: PairSet) -> list[str]:
    """What test and validation share with training: slides, and files with the same bytes; a sentence each."""
    found = []
    training = pairs.split("train")
    slides, contents = {pair.slide for pair in training if pair.slide}, _contents(pairs)
    seen = {contents[pair.he_path] for pair in training}
    for name in SPLITS[1:]:
        own = pairs.split(name)
        if shared := sorted({pair.slide for pair in own if pair.slide} & slides):
            found.append(
                f"the split leaks: {len(shared)} slides of '{name}' are in 'train' too, for example {shared[0]}."
            )
        if same := [pair for pair in own if contents[pair.he_path] in seen]:
            found.append(
                f"the split leaks: {len(same)} H&E images of '{name}' are in 'train' too, for example {same[0].he_path}."
            )
    return found


def _contents(pairs: PairSet) -> dict[Path, object]:
    """What H&E files hold: their size, and a hash where several are equally large."""

    def size(pair: Pair) -> int:
        return pair.he_path.stat().st_size

    counts = Counter(map(size, pairs.pairs))
    known: dict[tuple[int, int], bytes] = {}
    contents: dict[Path, object] = {}
    for pair in pairs.pairs:
        state = pair.he_path.stat()
        contents[pair.he_path] = state.st_size
        if counts[state.st_size] > 1:
            inode = state.st_dev, state.st_ino
            if inode not in known:
                known[inode] = hashlib.blake2b(pair.he_path.read_bytes()).digest()
            contents[pair.he_path] = known[inode]
    return contents

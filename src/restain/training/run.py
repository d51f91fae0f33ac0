"""The training job: both stages, checkpoints, exact resume, the bundle."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric import Fabric
from lightning.fabric.loggers.tensorboard import TensorBoardLogger
from rich.console import Console

from restain import NOTICE, losses
from restain.bundle import add_ood_detector, load_bundle, save_bundle
from restain.data import Pair, PairSet, pair_weights
from restain.data.decoded import PairStore
from restain.data.normalization import picture_normalizer
from restain.errors import Interrupted, RestainError
from restain.files import make_folder, whole_file
from restain.models.build import build_generator
from restain.models.generator import Generator
from restain.models.network import StainingNetwork
from restain.ood.detector import fit_ood_detector
from restain.progress import Bar
from restain.recipe import Recipe, find_recipe, load_recipe, parse_recipe
from restain.training.batches import Crops, batches, decoded_pairs
from restain.training.checkpoint import StopRequest, load_checkpoint, save_checkpoint
from restain.training.clock import Clock, Seconds
from restain.training.devices import Devices
from restain.training.expression import ExpressionStage
from restain.training.peers import second_stage
from restain.training.prepare import prepare, trains_expression
from restain.training.stage import SecondStage
from restain.training.validate import match_dab
from restain.training.white import typical_white

Stage = ExpressionStage | SecondStage

STORE = "store"
"""Folder of decoded pairs in a run's folder."""

READ_EVERY = {"cpu": 1}
"""Steps after which losses are read, by kind of device; :data:`SELDOM` for those that would wait at each reading."""
SELDOM = 20


def train(
    recipe: Recipe | str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    accelerator: str = "auto",
    devices: str | int = 1,
    nodes: int = 1,
    store: str | Path | None = None,
    fit_ood: bool = True,
) -> Path:
    """Train both stages and write the bundle ``out/bundle``.

    The folder also holds the recipe, a checkpoint per stage, and TensorBoard logs with image panels. Pairs that do not fit
    into memory (the recipe's ``data.cache_mib``) are decoded once into a store on disk. The same call after
    an interruption resumes from the last checkpoint, with the result of an uninterrupted run; after the end, it changes
    nothing.

    Args:
        recipe: the recipe, its file, or the name of one that is shipped with restain.
        data: one or more folders of pairs.
        out: the run's folder.
        accelerator: ``cpu``, ``cuda``, ``mps``, or ``auto`` for the best that is there.
        devices: number of devices per node, or ``auto``.
        nodes: number of nodes.
        store: folder of decoded pairs, where memory is too small for them; trainings can share it, and it is kept. None
            takes one in ``out``, which is removed at the end.
        fit_ood: add an OOD detector, fitted on the training's H&E images, to the bundle.

    Returns:
        The bundle's path.

    Raises:
        RestainError: before the first step, if this machine lacks the devices, the data has faults, too few pairs, images
            smaller than a crop or of another mpp than the recipe's, or exchanged sides; if the folder holds a run of another recipe or other data or
            cannot be written, or a loss stops being a finite number.
        Interrupted: on Ctrl-C or SIGTERM, after a checkpoint was written.

    Example:
        ``restain.train("phantom-small", "data/phantom", "runs/phantom-small")``
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(find_recipe(str(recipe)))
    folders = [Path(one) for one in ([data] if isinstance(data, str | Path) else data)]
    run_folder = Path(out)
    prepared = prepare(recipe, folders, accelerator=accelerator, devices=devices, nodes=nodes)
    make_folder(run_folder)
    pairs = prepared.pairs
    # Fabric tells on standard error which precision it takes; the run's recipe and bundle say that.
    for package in ("fabric", "pytorch"):
        logging.getLogger(f"lightning.{package}").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*num_workers|.*srun|.*lr_scheduler")
    board = TensorBoardLogger(run_folder, name="logs", version="")
    fabric = prepared.devices.fabric(recipe.train, board)
    fabric.launch()
    if fabric.is_global_zero:
        _claim(run_folder, recipe, pairs)
    fabric.barrier()

    torch.manual_seed(recipe.seed)
    generator = build_generator(recipe)
    known = any(p.level is not None for p in pairs.split("train"))
    _start_weights(recipe, generator, known, folders[0])
    if isinstance(generator, Generator):
        _settle(recipe, generator, pairs.split("train"))
    run = _Run(fabric, board, recipe, pairs, run_folder, None if store is None else Path(store), prepared.devices)
    if generator.expression is not None and trains_expression(recipe, pairs.split("train")):
        classifier = ExpressionStage(fabric, recipe, generator.expression)
        run.stage(classifier, recipe.expression.crop, recipe.expression.batch, every=recipe.train.validate_every)
    # Anew, because the first stage may or may not have drawn from the generator in this process.
    torch.manual_seed(recipe.seed + 1)
    run.stage(
        second_stage(fabric, recipe, generator),
        recipe.data.crop,
        recipe.data.batch,
        every=recipe.train.validate_every,
    )
    if fit_ood and fabric.is_global_zero and load_bundle(run.bundle).ood is None:
        with Bar("reading training images", run.console) as bar:
            ood = fit_ood_detector(
                pairs.split("train"),
                recipe.data.augment,
                seed=recipe.seed,
                normalize=picture_normalizer(recipe),
                progress=bar.update,
            )
        add_ood_detector(run.bundle, ood)
    fabric.barrier()
    if fabric.local_rank == 0:
        shutil.rmtree(run_folder / STORE, ignore_errors=True)
    return run.bundle


def _claim(out: Path, recipe: Recipe, pairs: PairSet) -> None:
    """Write what the run is made of, or see that it is what an earlier call wrote."""
    names = "\n".join(f"{p.split}/{p.name}" for p in pairs.pairs)
    if recipe.data.weighted:
        names += f"\n{pair_weights(pairs.roots, pairs.split('train')).tolist()}"
    made_of: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "data": hashlib.sha256(names.encode()).hexdigest(),
    }
    record = out / "run.json"
    try:
        if record.is_file():
            before = json.loads(record.read_text(encoding="utf-8"))
            if not _same(before.get("recipe"), recipe):
                raise RestainError(f"{out}: the folder holds a run of another recipe; choose another one.")
            if before.get("data") != made_of["data"]:
                raise RestainError(f"{out}: the folder holds a run of other data; choose another one.")
            return
        with whole_file(record) as partial:
            partial.write_text(json.dumps(made_of, indent=2) + "\n", encoding="utf-8")
        (out / "recipe.yaml").write_text(yaml.safe_dump(made_of["recipe"], sort_keys=False), encoding="utf-8")
    except OSError as fault:
        raise RestainError(f"{out}: the run's folder cannot be written ({fault.strerror}).") from None
    except ValueError:
        raise RestainError(f"{record}: the file is damaged; choose another folder.") from None


def _same(before: Any, recipe: Recipe) -> bool:
    """Whether a run's recipe is this one; a key that an older restain did not know counts as its default."""
    try:
        return isinstance(before, dict) and parse_recipe(before, "run.json") == recipe
    except RestainError:
        return False


def _settle(recipe: Recipe, generator: Generator, training: Sequence[Pair]) -> None:
    """What of the generator is not learned: the measured white, the frozen encoder."""
    if recipe.generator.white == "measured" and (head := generator.stain_head) is not None:
        head.white.measured(torch.from_numpy(typical_white(training, recipe.seed) / 255))
    if recipe.train.frozen != "none":
        generator.freeze(recipe.train.frozen)


def _start_weights(recipe: Recipe, generator: StainingNetwork, levels_known: bool, data: Path) -> None:
    if recipe.start_from is not None:
        source = load_bundle(recipe.start_from)
        if source.card.normalization is not None and not recipe.data.normalization:
            raise RestainError(
                f"{source.path}: the bundle was trained on normalised H&E images; set data.normalization=true in the recipe."
            )
        # A bundle that predicts its white may start a model that does not; nothing else may be missing.
        own = generator.state_dict()
        given = source.generator.state_dict()
        given = {k: v for k, v in given.items() if k in own or not k.startswith("head.white.predict.")}
        try:
            generator.load_state_dict(given)
        except RuntimeError:
            raise RestainError(
                f"{source.path}: the bundle's networks are of another shape than the recipe's; "
                "take over its 'generator' and 'expression' sections."
            ) from None
        return
    if generator.expression is not None and not levels_known:
        raise RestainError(
            f"{data}: no pair has a HER2 level, so the expression classifier cannot be trained; "
            "set generator.label_feature=false, or start_from a bundle."
        )
    if generator.expression is not None:
        generator.expression.load_pretrained()


class _Run:
    """What both stages share: data, checkpoints, progress, logs."""

    def __init__(
        self,
        fabric: Fabric,
        board: TensorBoardLogger,
        recipe: Recipe,
        pairs: PairSet,
        out: Path,
        store: Path | None,
        devices: Devices,
    ) -> None:
        self.fabric = fabric
        self.board = board
        self.recipe = recipe
        self.pairs = pairs
        self.out = out
        self.bundle = out / "bundle"
        self.console = Console(stderr=True, quiet=not fabric.is_global_zero)
        self.normalize = picture_normalizer(recipe)
        self.devices = devices
        training = pairs.split("train")
        self.weights = pair_weights(pairs.roots, training) if recipe.data.weighted else None
        self.decoded = decoded_pairs(recipe, training, store or out / STORE, devices.devices)
        self.read_every = READ_EVERY.get(fabric.device.type, SELDOM)

    def stage(self, stage: Stage, crop: int, batch: int, every: int) -> None:
        """Train one stage to its end, from its checkpoint where there is one."""
        fabric, data = self.fabric, self.recipe.data
        path = self.out / f"{stage.name}.ckpt"
        done, clock = 0, Clock(fabric.device)
        if (saved := load_checkpoint(path)) is not None:
            stage.restore(saved["stage"])
            done = int(saved["step"])
            clock = Clock(fabric.device, Seconds(**saved.get("seconds", {})))
        if done == stage.steps:
            return
        self._fill()
        feed = batches(
            Crops(self.decoded, crop, data.augment, self.recipe.seed, self.weights, data.mix),
            start=done,
            stop=stage.steps,
            batch=batch,
            workers=data.workers,
            rank=fabric.global_rank,
            world=fabric.world_size,
            device=fabric.device,
        )
        began, first = time.monotonic(), done
        unread: list[tuple[int, dict[str, torch.Tensor]]] = []
        with StopRequest() as stop, Bar(stage.name, self.console, done=done, total=stage.steps, keep=True) as bar:
            for number, crop_batch in enumerate(feed, start=done):
                unread.append((number, stage.step(number, crop_batch)))
                done = number + 1
                clock.lap()
                saving = done % every == 0 or done == stage.steps
                stopping = False
                if saving or done % self.read_every == 0 or (fabric.world_size == 1 and stop.requested):
                    stopping = self._any_process(stop.requested)
                    bar.update(done, stage.steps, self._read(stage.name, unread))
                if stopping or saving:
                    self._save(path, stage, done, clock.seconds)
                    if saving:
                        rate = (time.monotonic() - began) / (done - first)
                        text = f"{stage.name} {done}/{stage.steps}: {self._validate(stage, done)} {rate:.2f} s/step"
                        self.console.print(text, highlight=False, markup=False)
                        clock.skip()
                if stopping and done < stage.steps:
                    raise Interrupted(
                        f"stopped at step {done} of {stage.steps} of stage '{stage.name}'; "
                        f"re-run the same command to resume ({path})."
                    )

    def _fill(self) -> None:
        """Decode what the store lacks, once per node; other processes of the node wait."""
        if isinstance(self.decoded, PairStore):
            if self.fabric.local_rank == 0:
                with Bar("decoding pairs", self.console) as bar:
                    node = self.fabric.global_rank // self.devices.devices
                    self.decoded.fill(bar.update, part=node, parts=self.devices.nodes)
            self.fabric.barrier()

    def _read(self, stage: str, unread: list[tuple[int, dict[str, torch.Tensor]]]) -> str:
        """Read, check and log the losses of the last steps, and forget them; returns the last ones as text."""
        values = iter(torch.stack([value.float() for _, terms in unread for value in terms.values()]).tolist())
        shown = ""
        for number, terms in unread:
            read = dict(zip(terms, values, strict=False))
            losses.require_finite(number, read)
            self.fabric.log_dict({f"{stage}/{name}": value for name, value in read.items()}, step=number + 1)
            shown = " ".join(f"{name}={value:.3f}" for name, value in read.items())
        unread.clear()
        return shown

    def _any_process(self, requested: bool) -> bool:
        """Whether a stop was requested in any process: all must leave the loop at the same step."""
        if self.fabric.world_size == 1:
            return requested
        total = self.fabric.all_reduce(torch.tensor(float(requested), device=self.fabric.device), reduce_op="sum")
        return float(total) > 0  # type: ignore[arg-type]

    def _save(self, path: Path, stage: Stage, done: int, seconds: Seconds) -> None:
        if self.fabric.is_global_zero:
            save_checkpoint(path, {"step": done, "stage": stage.state(), "seconds": asdict(seconds)})
        self.fabric.barrier()

    def _validate(self, stage: Stage, done: int) -> str:
        """Validate, log figures and pictures, write the bundle; returns the figures as text."""
        text = ""
        if self.fabric.is_global_zero:
            pairs = self.pairs.split("val")
            pairs = pairs[: self.recipe.train.validate_pairs or None]
            generator = stage.averaged_generator
            if generator is not None and self.recipe.train.match_dab and done == stage.steps:
                factor = match_dab(generator, self.pairs.split("train"), self.recipe.seed, self.normalize)
                self.console.print(f"the DAB was multiplied by {factor:.2f}", highlight=False)
            figures, panels = stage.validate(pairs, self.normalize)
            for number, panel in enumerate(panels):
                title = f"HE | virtual, {NOTICE} | real/{number}"
                self.board.experiment.add_image(title, panel, done, dataformats="HWC")
            if generator is not None:
                save_bundle(
                    self.bundle,
                    generator,
                    self.recipe,
                    step=done,
                    data=" ".join(filter(None, (self.recipe.data.description, self.pairs.describe()))),
                    figures=figures,
                )
            known = {k: v for k, v in figures.items() if v is not None}
            self.fabric.log_dict({f"{stage.name}/{k}": v for k, v in known.items()}, step=done)
            text = " ".join(f"{k}={v:.3f}" for k, v in known.items() if k != "val_pairs")
        self.fabric.barrier()
        return text

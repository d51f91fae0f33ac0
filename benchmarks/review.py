"""Do the review's 95 % intervals hold the true value 95 times in 100?

Readings are simulated with a known answer: cases with a level, readers with a bias of their own in general and for virtual
images, images that look higher or lower to everybody, and a reader's chance error. The true figure is that of a thousand readers
who read five thousand cases each. Then small studies are drawn, and each says what ``restain review results`` would say.

    python benchmarks/review.py [--quick]

The last line is a JSON object: per design the coverage of Obuchowski and Rockette's interval of the difference in kappa, of the
pigeonhole bootstrap's of the virtual stain's kappa, the mean width of both, and how often a stain that is worse by
exactly the margin is called non-inferior (2.5 % is what the interval promises); and the permutation test's share of p < 0.05
among readers who guess, on the same images alike.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import numpy as np

from restain.review.mrmc import guessing, kappa_difference, kappa_interval, kappas, level_tables


@dataclass(frozen=True)
class World:
    """Standard deviations, in levels: of readers, of readers on virtual images, of images, of chance; ``worse`` adds to chance on virtual ones."""

    name: str
    reader: float
    taste: float
    image: float
    chance: float
    worse: float


WORLDS = (
    World("alike", 0.2, 0.1, 0.3, 0.4, 0.0),
    World("worse", 0.2, 0.1, 0.3, 0.4, 0.4),
    World("readers differ", 0.5, 0.4, 0.2, 0.4, 0.2),
    World("images differ", 0.1, 0.0, 0.7, 0.3, 0.0),
)
DESIGNS = ((3, 30), (5, 50), (8, 120))


def read(world: World, readers: int, cases: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True levels ``(R, C)`` and those read, chemical and virtual."""
    truth = rng.integers(0, 4, cases)
    bias, taste = rng.normal(0, world.reader, (readers, 1)), rng.normal(0, world.taste, (readers, 1))

    def levels(own: np.ndarray, chance: float) -> np.ndarray:
        seen = truth + rng.normal(0, world.image, cases) + own + rng.normal(0, chance, (readers, cases))
        return np.clip(np.rint(seen), 0, 3).astype(np.int64)

    chemical = levels(bias, world.chance)
    virtual = levels(bias + taste, world.chance + world.worse)
    return np.broadcast_to(truth, (readers, cases)), chemical, virtual


def known(world: World) -> tuple[float, float]:
    """The difference in kappa, virtual less chemical, and the virtual stain's kappa, of all readers and cases."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(40):
        truth, chemical, virtual = read(world, 25, 5000, rng)
        pairs.append([kappas(level_tables(levels, truth)).mean() for levels in (chemical, virtual)])
    before, after = np.mean(pairs, axis=0)
    return float(after - before), float(after)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="fewer studies")
    trials = 400 if options.parse_args().quick else 1000
    result = {}
    for number, world in enumerate(WORLDS):
        difference, kappa = known(world)
        for readers, cases in DESIGNS:
            rng = np.random.default_rng([number, readers, cases])
            held, widths, passed = np.zeros(2), np.zeros(2), 0
            for trial in range(trials):
                truth, chemical, virtual = read(world, readers, cases, rng)
                first, second = level_tables(virtual, truth), level_tables(chemical, truth)
                found = kappa_difference(first, second)
                level = kappa_interval(first, np.arange(readers)[:, None], readers, trial)
                held += [found.low <= difference <= found.high, level.low <= kappa <= level.high]
                widths += [found.high - found.low, level.high - level.low]
                passed += found.low > difference  # the margin lies exactly at the true difference
            row = {
                "difference": round(difference, 4),
                "coverage_difference": float(held[0] / trials),
                "coverage_kappa": float(held[1] / trials),
                "width_difference": round(float(widths[0] / trials), 3),
                "width_kappa": round(float(widths[1] / trials), 3),
                "wrongly_non_inferior": passed / trials,
            }
            result[f"{world.name}, {readers} readers, {cases} cases"] = row
            print(f"{world.name:15} {readers} readers {cases:4} cases  {row}", flush=True)
    rng = np.random.default_rng(1)
    found_skill = 0
    for trial in range(trials):
        looks = rng.normal(0, 1, (1, 30, 2)) + rng.normal(0, 0.5, (5, 30, 2)) + rng.normal(0, 1, (5, 1, 1))
        found_skill += guessing((looks > 0).astype(np.int64), trial, draws=400) < 0.05
    result["guessing_p_below_0.05"] = found_skill / trials
    print(json.dumps(result))


if __name__ == "__main__":
    main()

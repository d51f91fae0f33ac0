"""Reading order: random, the two modalities of a case in different parts, repeats far apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restain.review.definition import StudyDefinition


@dataclass(frozen=True, slots=True)
class Place:
    """Position in the order: ``image`` is an index of the definition's images; ``repeat`` marks its second showing."""

    part: int
    image: int
    repeat: bool = False


def reading_order(study: StudyDefinition, reader: int) -> list[Place]:
    """The reading order of a reader, given by index; the study's seed and the index decide every draw.

    A case with both modalities is read in one modality in part 0 and in the other in part 1; which comes first is
    random and balanced over cases. A case of one modality goes to a random part. Within a part the order is
    random. The two showings of a repeated image are at least a third of the part apart.
    """
    rng = np.random.default_rng([study.seed, reader])
    numbers = {image.path: number for number, image in enumerate(study.images)}
    parts: tuple[list[int], list[int]] = ([], [])
    cases = list(study.cases.values())
    for alone in (False, True):
        own = [images for images in cases if (len(images) == 1) is alone]
        for turn, which in enumerate(rng.permutation(len(own))):
            first, second = numbers[own[which][0].path], numbers[own[which][-1].path]
            parts[turn % 2].append(first)
            if not alone:
                # Images of a case come in the order of the definition, perhaps by modality; the turn undoes that.
                parts[1 - turn % 2].append(second)
    if not parts[0]:
        parts = (parts[1], parts[0])
    twice = _repeated(study, rng)
    return [
        Place(part, image, repeat)
        for part, images in enumerate(parts)
        for image, repeat in _arranged(images, twice, rng)
    ]


def _repeated(study: StudyDefinition, rng: np.random.Generator) -> set[int]:
    count = len(study.images)
    if isinstance(study.repeats, float):
        return {int(one) for one in rng.choice(count, round(study.repeats * count), replace=False)}
    return {number for number, image in enumerate(study.images) if image.path in study.repeats}


def _arranged(images: list[int], twice: set[int], rng: np.random.Generator) -> list[tuple[int, bool]]:
    """Images in random order; repeated ones once early and once late, the others in the free places."""
    again = [int(one) for one in rng.permutation([image for image in images if image in twice])]
    others = [int(one) for one in rng.permutation([image for image in images if image not in twice])]
    total, count = len(images) + len(again), len(again)
    span = max(count, total // 3)
    early = sorted(rng.choice(span, count, replace=False))
    late = sorted(total - span + rng.choice(span, count, replace=False))
    # If repeats fill their part, only the same order keeps them apart.
    second = again if span == count else [int(one) for one in rng.permutation(again)]
    shown: dict[int, tuple[int, bool]] = {}
    shown |= {int(at): (image, False) for at, image in zip(early, again, strict=True)}
    shown |= {int(at): (image, True) for at, image in zip(late, second, strict=True)}
    left = iter(others)
    return [shown[at] if at in shown else (next(left), False) for at in range(total)]

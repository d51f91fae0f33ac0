"""The contact sheet: what was kept and what was not, to be looked at before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from restain.dataset_builder.cut import PairReader, Patch
from restain.dataset_builder.rules import BALANCE, RULES, UNREADABLE
from restain.dataset_builder.survey import Survey
from restain.errors import RestainError
from restain.files import make_folder, whole_file
from restain.her2 import Her2Level
from restain.images import Rgb
from restain.report import write_page

if TYPE_CHECKING:
    from restain.dataset_builder.run import Outcome, Settings

PICTURES = "contact-sheet"
PANEL_PX = 240
"""Side of a picture."""
RANDOM, EXTREME, REJECTED = 8, 6, 4
"""How many pairs are shown: drawn at random, best and worst each, and out for each reason."""
FIELDS = 6
"""Fields of the checkerboard along a side."""
NOTICE = "training data, research use only"


@dataclass(frozen=True)
class _Group:
    title: str
    words: str
    patches: list[Patch]


def write_sheet(
    out: Path,
    surveys: Sequence[Survey | None],
    patches: Sequence[Patch],
    outcomes: Sequence[Outcome],
    settings: Settings,
    *,
    dry_run: bool,
    command: str,
) -> Path:
    """Write ``out/contact-sheet.html`` and its pictures; returns the page.

    Raises:
        RestainError: if a slide cannot be read or a file cannot be written.
    """
    groups = _groups(patches, settings.seed)
    links = _draw(out, surveys, [patch for group in groups for patch in group.patches], settings)
    view = [
        {
            "title": group.title,
            "words": group.words,
            "cases": [_case(patch, surveys, links[key]) for patch in group.patches if (key := _key(patch)) in links],
        }
        for group in groups
    ]
    return write_page(
        out / "contact-sheet.html",
        "sheet.html.j2",
        "restain.dataset_builder",
        title="Contact sheet" + (" of a dry run" if dry_run else ""),
        outcomes=outcomes,
        shown=[name for name in _reasons() if any(one.removed.get(name) for one in outcomes)],
        rules=_rules(outcomes, settings),
        parts=_parts(patches, surveys),
        levels=[level.text for level in Her2Level],
        groups=[group for group in view if group["cases"]],
        dry_run=dry_run,
        facts=_facts(settings, command).items(),
        notice=NOTICE,
    )


def _reasons() -> tuple[str, ...]:
    return (*(rule.name for rule in RULES), *BALANCE, UNREADABLE)


def _groups(patches: Sequence[Patch], seed: int) -> list[_Group]:
    rng = np.random.default_rng([seed, len(patches)])

    def drawn(members: list[Patch], count: int) -> list[Patch]:
        chosen = sorted(rng.permutation(len(members))[:count].tolist())
        return [members[i] for i in chosen]

    kept = [one for one in patches if one.reason is None]
    ranked = sorted(kept, key=_match)
    groups = [
        _Group("Kept, drawn at random", "What the training sees.", drawn(kept, RANDOM)),
        _Group("Kept, worst match", "If these are wrong, the thresholds are too low.", ranked[:EXTREME]),
        _Group("Kept, best match", "", ranked[::-1][:EXTREME]),
    ]
    words = {rule.name: rule.words for rule in RULES} | {name: text for name, (text, _) in BALANCE.items()}
    for name in _reasons():
        members = [one for one in patches if one.reason == name]
        text = words.get(name, "Pixels that cannot be decoded.")
        groups.append(
            _Group(f"Out: {name}", f"{text[0].upper()}{text[1:]}.".replace("..", "."), drawn(members, REJECTED))
        )
    return groups


def _match(patch: Patch) -> float:
    return -1.0 if patch.candidate.figures is None else patch.candidate.figures.match


def _key(patch: Patch) -> tuple[int, int, int]:
    return patch.slide, patch.candidate.region.origin.x, patch.candidate.region.origin.y


def _draw(
    out: Path, surveys: Sequence[Survey | None], shown: Iterable[Patch], settings: Settings
) -> dict[tuple[int, int, int], str]:
    """One picture per patch: H&E, IHC and both as a checkerboard; their links. Unreadable ones have none."""
    folder = out / PICTURES
    make_folder(folder)
    links: dict[tuple[int, int, int], str] = {}
    wanted = sorted({_key(patch): patch for patch in shown}.items(), key=lambda item: item[0])
    for number, survey in enumerate(surveys):
        mine = [(key, patch) for key, patch in wanted if key[0] == number]
        if survey is None or not mine:
            continue
        with PairReader(survey, settings.grid) as reader:
            for key, patch in mine:
                try:
                    picture = _panels(*reader.read(patch.candidate))
                except RestainError:
                    continue
                path = folder / "{}-{}-{}.jpg".format(*key)
                with whole_file(path) as partial:
                    picture.save(partial, format="JPEG", quality=88)
                links[key] = f"{PICTURES}/{path.name}"
    for path in folder.glob("*.jpg"):
        if f"{PICTURES}/{path.name}" not in links.values():
            path.unlink()
    return links


def _panels(he: Rgb, ihc: Rgb) -> Image.Image:
    small = [np.asarray(Image.fromarray(rgb).resize((PANEL_PX, PANEL_PX), Image.Resampling.BOX)) for rgb in (he, ihc)]
    side = PANEL_PX // FIELDS
    dark = np.add.outer(np.arange(PANEL_PX) // side, np.arange(PANEL_PX) // side) % 2 == 1
    board = np.where(dark[..., None], small[1], small[0])
    gap = np.full((PANEL_PX, 4, 3), 255, np.uint8)
    return Image.fromarray(np.concatenate([small[0], gap, small[1], gap, board], axis=1))


def _case(patch: Patch, surveys: Sequence[Survey | None], link: str) -> dict[str, Any]:
    survey, one = surveys[patch.slide], patch.candidate
    assert survey is not None
    figures = one.figures
    words = [f"tissue {one.shares.tissue:.0%}", f"shared {one.shares.shared:.0%}"]
    if one.shares.pen > 0:
        words.append(f"pen {one.shares.pen:.1%}")
    if one.shares.fold > 0:
        words.append(f"fold {one.shares.fold:.1%}")
    if figures is not None:
        words += [
            f"match {figures.match:.2f}",
            f"matched {figures.matched:.0%}",
            f"error {figures.error_um:.1f} µm",
            f"sharpness {one.sharpness:.2f}",
            f"DAB {figures.positive:.0%}",
        ]
        if figures.correction != "none":
            words.append(f"moved by {figures.moved_um:.1f} µm ({figures.correction})")
    place = f"x {one.region.origin.x}, y {one.region.origin.y}"
    return {
        "link": link,
        "title": patch.name or f"{survey.pair.he.name}, {place}",
        "slide": f"{survey.pair.he.name}, {place}" if patch.name else "",
        "words": " · ".join(words),
    }


def _rules(outcomes: Sequence[Outcome], settings: Settings) -> list[dict[str, Any]]:
    total: Counter[str] = Counter()
    for one in outcomes:
        total.update(one.removed)
    words = [(rule.name, rule.words) for rule in RULES] + [(name, text) for name, (text, _) in BALANCE.items()]
    rows = []
    for name, text in words:
        threshold = settings.thresholds.get(name)
        rows.append(
            {
                "name": name,
                "words": text,
                "threshold": "off" if threshold is None else f"{threshold:g}",
                "removed": total[name],
            }
        )
    if total[UNREADABLE]:
        rows.append(
            {
                "name": UNREADABLE,
                "words": "pixels that cannot be decoded",
                "threshold": "",
                "removed": total[UNREADABLE],
            }
        )
    return rows


def _parts(patches: Sequence[Patch], surveys: Sequence[Survey | None]) -> list[dict[str, Any]]:
    """Per part: patients, pairs, and pairs per level."""
    rows = []
    for part in ("train", "val", "test"):
        mine = [one for one in patches if one.split == part and one.reason is None]
        found = [survey.pair for one in mine if (survey := surveys[one.slide]) is not None]
        levels = Counter(pair.level.text for pair in found)
        rows.append(
            {"name": part, "patients": len({pair.person for pair in found}), "pairs": len(mine), "levels": levels}
        )
    return rows


def _facts(settings: Settings, command: str) -> dict[str, str]:
    grid = settings.grid
    facts = {
        "Patches": f"{grid.size} px at {grid.mpp:g} µm ({grid.size * grid.mpp:.0f} µm), overlap {grid.overlap} px",
        "Parts": f"by patient; test {settings.test_share:.0%}, validation {settings.val_share:.0%} of slides; seed {settings.seed}",
        "Command": command,
    }
    return {name: value for name, value in facts.items() if value}

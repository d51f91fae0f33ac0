"""Contact sheet of a data set: examples of kept and rejected patches, to be checked before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from restain.data.layouts import SPLITS
from restain.dataset_builder.patches import Patch, PatchSource
from restain.dataset_builder.rules import TITLES, UNREADABLE
from restain.dataset_builder.windows import Grid, MeasuredPair
from restain.errors import RestainError
from restain.files import make_folder, whole_file
from restain.her2 import Her2Level
from restain.images import Rgb
from restain.registration.output import checkerboard
from restain.report import write_page

if TYPE_CHECKING:
    from restain.dataset_builder.builder import Built, Settings

PICTURES = "contact-sheet"
PANEL_PX = 240
"""Side of a picture."""
RANDOM, EXTREME, REJECTED = 8, 6, 4
"""Number of pairs shown: random ones, best and worst each, and rejected for each reason."""
FIELDS = 6
"""Fields of the checkerboard along a side."""
NOTICE = "training data, research use only"

_Key = tuple[int, int, int]


def write_sheet(
    built: Built, measured: Sequence[MeasuredPair | None], settings: Settings, *, dry_run: bool, command: str
) -> None:
    """Write the page and its pictures.

    Raises:
        RestainError: if a slide cannot be read or a file cannot be written.
    """
    groups = _groups(built.patches, settings.seed)
    shown = [patch for *_, patches in groups for patch in patches]
    links = _write_pictures(built.out, measured, shown, settings.grid)
    view = [
        {
            "title": title,
            "text": text,
            "cases": [
                _case(patch, found, links[_key(patch)])
                for patch in patches
                if _key(patch) in links and (found := measured[patch.slide]) is not None
            ],
        }
        for title, text, patches in groups
    ]
    removed: Counter[str] = Counter()
    for one in built.outcomes:
        removed.update(one.removed)
    write_page(
        built.page,
        "contact_sheet.html.j2",
        "restain.dataset_builder",
        title="Contact sheet" + (" of a dry run" if dry_run else ""),
        outcomes=built.outcomes,
        shown=[name for name in TITLES if removed[name]],
        rules=_rules(removed, settings),
        splits=_splits(built.patches, measured),
        levels=[level.text for level in Her2Level],
        groups=[group for group in view if group["cases"]],
        dry_run=dry_run,
        facts=_facts(settings, command),
        notice=NOTICE,
    )


def _groups(patches: Sequence[Patch], seed: int) -> list[tuple[str, str, list[Patch]]]:
    """Title, text and patches of each group of examples."""
    rng = np.random.default_rng([seed, len(patches)])

    def draw(members: list[Patch], count: int) -> list[Patch]:
        return [members[i] for i in sorted(rng.permutation(len(members))[:count].tolist())]

    def match(patch: Patch) -> float:
        return -1.0 if patch.candidate.quality is None else patch.candidate.quality.match

    kept = [one for one in patches if one.reason is None]
    ranked = sorted(kept, key=match)
    groups = [
        ("Kept, drawn at random", "Examples of the training data.", draw(kept, RANDOM)),
        ("Kept, worst match", "If these do not match, the thresholds are too low.", ranked[:EXTREME]),
        ("Kept, best match", "", ranked[::-1][:EXTREME]),
    ]
    for name, title in TITLES.items():
        rejected = draw([one for one in patches if one.reason == name], REJECTED)
        groups.append((f"Rejected: {name}", f"{title[0].upper()}{title[1:]}.", rejected))
    return groups


def _key(patch: Patch) -> _Key:
    return patch.slide, patch.candidate.region.origin.x, patch.candidate.region.origin.y


def _write_pictures(
    out: Path, measured: Sequence[MeasuredPair | None], shown: Iterable[Patch], grid: Grid
) -> dict[_Key, str]:
    """Links of one picture per patch: H&E, IHC and both as a checkerboard. Unreadable patches have none."""
    folder = make_folder(out / PICTURES)
    links: dict[_Key, str] = {}
    wanted = sorted({_key(patch): patch for patch in shown}.items(), key=lambda item: item[0])
    for number, found in enumerate(measured):
        mine = [(key, patch) for key, patch in wanted if key[0] == number]
        if found is None or not mine:
            continue
        with PatchSource(found, grid) as source:
            for key, patch in mine:
                try:
                    picture = _panels(*source.read(patch.candidate))
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
    side = (PANEL_PX, PANEL_PX)
    one, other = (np.asarray(Image.fromarray(rgb).resize(side, Image.Resampling.BOX)) for rgb in (he, ihc))
    gap = np.full((PANEL_PX, 4, 3), 255, np.uint8)
    return Image.fromarray(np.concatenate([one, gap, other, gap, checkerboard(one, other, PANEL_PX // FIELDS)], axis=1))


def _case(patch: Patch, found: MeasuredPair, link: str) -> dict[str, Any]:
    one, quality = patch.candidate, patch.candidate.quality
    shares = one.shares
    facts = [f"tissue {shares.tissue:.0%}", f"shared {shares.shared:.0%}"]
    facts += [f"{name} {share:.1%}" for name, share in (("pen", shares.pen), ("fold", shares.fold)) if share > 0]
    if quality is not None:
        facts += [
            f"match {quality.match:.2f}",
            f"matched {quality.matched:.0%}",
            f"error {quality.error_um:.1f} µm",
            f"sharpness {one.sharpness:.2f}",
            f"DAB {quality.positive:.0%}",
        ]
        if quality.correction != "none":
            facts.append(f"moved by {quality.moved_um:.1f} µm ({quality.correction})")
    place = f"{found.pair.he.name}, x {one.region.origin.x}, y {one.region.origin.y}"
    slide = place if patch.name else ""
    return {"link": link, "title": patch.name or place, "slide": slide, "facts": " · ".join(facts)}


def _rules(removed: Counter[str], settings: Settings) -> list[dict[str, Any]]:
    rows = []
    for name, title in TITLES.items():
        threshold = settings.thresholds.get(name)
        text = "" if name == UNREADABLE else "off" if threshold is None else f"{threshold:g}"
        rows.append({"name": name, "title": title, "threshold": text, "removed": removed[name]})
    return [row for row in rows if row["name"] != UNREADABLE or row["removed"]]


def _splits(patches: Sequence[Patch], measured: Sequence[MeasuredPair | None]) -> list[dict[str, Any]]:
    """Per split: patients, pairs, and pairs per level."""
    rows = []
    for split in SPLITS:
        mine = [measured[one.slide] for one in patches if one.split == split and one.reason is None]
        pairs = [found.pair for found in mine if found is not None]
        patients = {pair.patient_key for pair in pairs}
        levels = Counter(pair.level.text for pair in pairs)
        rows.append({"name": split, "patients": len(patients), "pairs": len(pairs), "levels": levels})
    return rows


def _facts(settings: Settings, command: str) -> dict[str, str]:
    grid = settings.grid
    shares = f"test {settings.test_share:.0%}, validation {settings.val_share:.0%} of slides"
    return {
        "Patches": f"{grid.size} px at {grid.mpp:g} µm ({grid.size * grid.mpp:.0f} µm), overlap {grid.overlap} px",
        "Splits": f"by patient; {shares}; seed {settings.seed}",
        "Command": command,
    }

"""The sentences of an evaluation's report, computed from ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from restain.evaluation.metrics import BY_KEY, POOLED

NOTHING = {"mean": None, "low": None, "high": None, "n": 0}
"""A figure that an evaluation does not have."""

GOAL_R16 = 0.8
"""restain's own goal for the correlation of DAB density over cells of 16 µm with the truth."""

GOAL_DE = 1.0
"""restain's own goal for the median background colour difference, where the real background's own spread allows it."""


def leading(metrics: Mapping[str, Any]) -> list[str]:
    """Where the stain is, how strong, and how white the background is."""
    own = metrics["overall"]["model"]
    reference = metrics["dab_reference"]
    kinds = {
        "truth": "the phantom's known DAB density",
        "deconvolution": "the DAB density of the real image by colour deconvolution",
    }
    against = " or ".join(words for kind, words in kinds.items() if reference[kind])
    sentences = []
    pooled = own[POOLED.key]
    if pooled["mean"] is not None:
        interval = f" (95 % interval {pooled['low']:.2f} to {pooled['high']:.2f})" if pooled["low"] is not None else ""
        reached = "is reached" if pooled["mean"] >= GOAL_R16 else "is not reached"
        sentences.append(
            f"DAB where DAB is: over all 16 µm cells of the split, virtual DAB correlates with {against} at "
            f"r = {pooled['mean']:.2f}{interval}. The goal of {GOAL_R16:g} {reached}."
        )
    virtual, real = own["dab_mean_virtual"]["mean"], own["dab_mean_real"]["mean"]
    if real:
        sentences.append(
            f"Strength: mean DAB is {virtual:.3f} OD against {real:.3f} OD, {virtual / real:.0%} of the reference."
        )
    sentences += _amount(own) + _white(own)
    return [sentence.replace(" -", " −") for sentence in sentences]


def _amount(own: Mapping[str, Any]) -> list[str]:
    completeness, weak = own.get("completeness_virtual", NOTHING), own.get("weak_area_ratio", NOTHING)
    said = []
    if completeness["mean"] is not None:
        real = own["completeness_real"]["mean"]
        said.append(
            f"Membranes: {completeness['mean']:.0%} of the cells' outlines are stained against {real:.0%} in the reference."
        )
    if weak["mean"] is not None:
        said.append(
            f"Weak staining: {weak['mean']:.0%} of the weakly stained area is stained in the virtual image too, on "
            f"{weak['n']} image{'' if weak['n'] == 1 else 's'} that have any; what is missing was bleached or misplaced."
        )
    return said


def _white(own: Mapping[str, Any]) -> list[str]:
    shift, difference = own["background_db"]["mean"], own["background_de"]["mean"]
    if difference is None or shift is None:
        return []
    tint = "yellower" if shift > 0 else "bluer"
    said = (
        f"White where it is not: over the background the colour is off by ΔE₀₀ {difference:.1f} (about 1 "
        f"is just noticeable) and {tint} than real by {abs(shift):.1f} in b*."
    )
    smooth, spread, noise = (
        own.get(key, NOTHING)["mean"] for key in ("background_de_smooth", "background_spread", "background_noise")
    )
    if smooth is None or spread is None or noise is None:
        return [said]
    seen, even = ("is reached" if value <= min(GOAL_DE, spread) else "is not reached" for value in (difference, smooth))
    floor = " (noise alone puts it out of reach there)" if noise > GOAL_DE and seen == "is not reached" else ""
    return [
        f"{said} Smoothed, so that the sensor's noise does not count, it is {smooth:.1f}; noise alone makes about {noise:.1f}. "
        f"The goal of at most {GOAL_DE:g}, and no more than the real background's own spread of {spread:.1f}, {seen} as "
        f"seen{floor} and {even} smoothed."
    ]


def about_blur(metrics: Mapping[str, Any]) -> str:
    """What the flat oracle does to PSNR and SSIM here."""
    won = []
    for key, title in (("psnr", "PSNR"), ("ssim", "SSIM")):
        line = metrics["comparison"].get(key, {}).get("oracle_flat")
        if line and line["beats_model"]:
            won.append(f"in {title} (better on {line['better_on']} of {line['n']} images)")
    start = "PSNR and SSIM reward blur: a flat picture of the right colour, in which nothing can be read, "
    if won:
        return start + f"beats this model here {' and '.join(won)}. A figure that a flat colour wins is no evidence."
    return start + "can beat a good one. Here it does not beat this model in either."


def image_line(row: Mapping[str, Any]) -> str:
    """An image's figures in one line."""
    shown = {
        "dab_r16": "DAB r",
        "background_de": "ΔE₀₀",
        "background_db": "Δb*",
        "psnr": "PSNR",
        "ssim": "SSIM",
        "mae": "MAE",
        "sharpness": "sharpness",
    }
    level = f"level {row['level']} · " if row["level"] else ""
    read = f" · read as {row['reading_classifier']} and {row['reading_rule']}" if row.get("reading_rule") else ""
    return level + " · ".join(f"{title} {BY_KEY[key].text(row.get(key))}" for key, title in shown.items()) + read


def facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the figures come from."""
    definitions, reference, fit = metrics["definitions"], metrics["dab_reference"], metrics["fit"]
    model = metrics["model"]
    used = {"truth": "truth of the phantom", "deconvolution": "colour deconvolution of the real image"}
    said = [("Model", model["label"])]
    said += [(key.replace("_", " ").capitalize(), value) for key, value in model.items() if key != "label"]
    return [
        *said,
        ("Data", metrics["data"]),
        ("Split", f"{metrics['split']}, {metrics['images']} images"),
        ("DAB reference", ", ".join(f"{used[kind]} ({n} images)" for kind, n in reference.items() if n)),
        (
            "Pixel and cell",
            f"{definitions['mpp']:g} µm; {definitions['cell_um']:g} µm cells are {definitions['cell_px']} px",
        ),
        (
            "Baseline fit",
            f"{fit['images']} of {fit['of']} training pairs of {fit['data']}"
            if fit
            else "none: " + ", ".join(dict.fromkeys(metrics["absent"].values())),
        ),
        ("HER2 classifier", (metrics.get("reading") or {}).get("label", "")),
        ("Feature network", _network(metrics, "distribution")),
        ("LPIPS", _network(metrics, "lpips")),
        ("Intervals", definitions["interval"]),
        ("Command", metrics["command"]),
        ("restain", metrics["restain"]),
        ("Date", metrics["created"]),
        ("Machine", metrics["machine"]),
    ]


def _network(metrics: Mapping[str, Any], kind: str) -> str:
    found = metrics.get("extractors", {}).get(kind, {})
    return found.get("name") or (f"absent: {found['absent']}" if found.get("absent") else "")

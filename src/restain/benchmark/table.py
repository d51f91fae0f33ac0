"""The benchmark's results: one table as JSON, CSV, Markdown and HTML, and the same crops for every method."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

import restain
from restain.benchmark.cost import Cost
from restain.evaluation import Evaluation
from restain.evaluation.comparison import compare_runs
from restain.evaluation.metrics import BY_KEY
from restain.files import make_folder, write_csv, write_json, write_text
from restain.recipe import Recipe
from restain.report import save_picture, write_page
from restain.slides import read_image

COLUMNS = (
    "dab_r16_pooled",
    "dab_r64_pooled",
    "weak_area_ratio",
    "dab_mean_error",
    "completeness_error",
    "background_de",
    "background_de_smooth",
    "background_de_relative",
    "background_db",
    "psnr",
    "ssim",
    "sharpness",
)
"""Figures of the table, by their keys in the evaluation."""

READING_COLUMNS = (("classifier", "kappa"), ("rule", "kappa"), ("classifier", "accuracy"))
"""Agreement of the HER2 level read from the virtual image with the known one: reading and figure."""

CROP = 256
"""Side in px of the crops that are shown side by side."""

SHOWN_PAIRS = 6


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure with its interval, and how it stands against the first recipe (``better``, ``worse`` or nothing)."""

    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    digits: int = 3
    verdict: str = ""

    def __str__(self) -> str:
        if self.mean is None:
            return "–"
        text = f"{self.mean:.{self.digits}f}"
        if self.low is not None and self.high is not None:
            text += f" [{self.low:.{self.digits}f}, {self.high:.{self.digits}f}]"
        return text + {"better": " ▲", "worse": " ▼"}.get(self.verdict, "")


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table."""

    name: str
    kind: str
    """``recipe``, ``baseline`` or ``ceiling``."""
    cells: Mapping[str, Cell]
    cost: Cost | None = None
    steps: int | None = None


def headings() -> dict[str, str]:
    """Keys of the table's figures and what they are called."""
    titles = {key: BY_KEY[key].title for key in COLUMNS}
    return titles | {f"{reading}_{figure}": f"HER2 {figure}, {reading}" for reading, figure in READING_COLUMNS}


def write_results(
    out: Path,
    evaluations: Mapping[str, Evaluation],
    recipes: Mapping[str, Recipe],
    costs: Mapping[str, Cost],
    *,
    budget: str,
    command: str,
) -> Path:
    """Write ``benchmark.json``, ``.csv``, ``.md`` and ``.html`` from finished evaluations by recipe; returns the page.

    The baseline rows are those of the first evaluation. Raises RestainError if a picture cannot be read, or a file
    cannot be written.
    """
    names = list(evaluations)
    verdicts = _verdicts(evaluations, out, command)
    lines = [
        Line(
            name,
            "recipe",
            _cells(evaluations[name].metrics, "model", verdicts.get(name, {})),
            costs[name],
            recipes[name].train.steps,
        )
        for name in names
    ]
    first = evaluations[names[0]].metrics
    lines += [
        Line(method, "baseline", _cells(first, method, {}))
        for method in first["overall"]
        if method not in ("model", "real")
    ]
    if (first.get("reading") or {}).get("real"):
        lines.append(Line("the real IHC image", "ceiling", _reading_cells(first, "real")))
    facts = {
        "data": first["data"],
        "split": f"{first['split']}, n = {first['images']}",
        "budget of each recipe": budget,
        "crop and batch": f"{recipes[names[0]].data.crop} px, {recipes[names[0]].data.batch}",
        "seed": str(recipes[names[0]].seed),
        "interval": first["definitions"]["interval"],
        "HER2 classifier": str((first.get("reading") or {}).get("label", "none")),
        "command": command,
        "machine": f"{platform.platform()}, {costs[names[0]].threads} thread(s), {costs[names[0]].device}",
        "restain": restain.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    plain = {"notice": restain.NOTICE, "facts": facts, "lines": [asdict(line) for line in lines]}
    write_json(out / "benchmark.json", plain)
    _write_csv(out / "benchmark.csv", lines)
    write_text(out / "benchmark.md", markdown(lines, facts))
    figures = _figures(out, evaluations)
    return write_page(
        out / "benchmark.html",
        "benchmark.html.j2",
        "restain.benchmark",
        title=f"Benchmark: {len(names)} recipes, {budget} each",
        facts=facts.items(),
        headings=headings(),
        lines=lines,
        figures=figures,
        columns=["H&E", "real IHC", *names],
        cost_titles=COST_TITLES,
        cost_texts=cost_texts,
        crop=CROP,
    )


def _verdicts(evaluations: Mapping[str, Evaluation], out: Path, command: str) -> dict[str, dict[str, str]]:
    """What the paired tests say of each recipe against the first, by recipe and figure."""
    if len(evaluations) < 2:
        return {}
    folders = [summary.folder for summary in evaluations.values()]
    keys = [key for key in COLUMNS if key.removesuffix("_pooled") == key]
    result = compare_runs(folders, out / "compare", metrics=keys, command=command).result
    labels = {run["label"]: name for run, name in zip(result["runs"], evaluations, strict=True)}
    verdicts: dict[str, dict[str, str]] = {}
    for line in result["differences"]:
        verdicts.setdefault(labels[line["run"]], {})[line["metric"]] = line["verdict"]
    return verdicts


def _cells(metrics: Mapping[str, Any], method: str, verdicts: Mapping[str, str]) -> dict[str, Cell]:
    figures = metrics["overall"].get(method, {})
    cells = {
        key: Cell(**_interval(figures.get(key)), digits=BY_KEY[key].digits, verdict=verdicts.get(key, ""))
        for key in COLUMNS
    }
    return cells | _reading_cells(metrics, method)


def _reading_cells(metrics: Mapping[str, Any], method: str) -> dict[str, Cell]:
    by_reading = (metrics.get("reading") or {}).get(method, {})
    return {
        f"{reading}_{figure}": Cell(**_interval(by_reading.get(reading, {}).get("patch", {}).get(figure)), digits=2)
        for reading, figure in READING_COLUMNS
    }


def _interval(figure: Mapping[str, Any] | None) -> dict[str, Any]:
    figure = figure or {}
    return {key: figure.get(key) for key in ("mean", "low", "high")} | {"n": figure.get("n") or 0}


COST_TITLES = {
    "steps": "steps",
    "parameters": "parameters, 10⁶",
    "train_minutes": "training, min",
    "stain_seconds_per_megapixel": "staining, s per 10⁶ px",
    "peak_memory_mib": "peak memory, MiB",
}


def cost_texts(line: Line) -> dict[str, str]:
    """A line's costs as the tables show them."""
    if line.cost is None:
        return dict.fromkeys(COST_TITLES, "")
    return {
        "steps": str(line.steps),
        "parameters": f"{line.cost.parameters / 1e6:.2f}",
        "train_minutes": f"{line.cost.train_seconds / 60:.1f}",
        "stain_seconds_per_megapixel": f"{line.cost.stain_seconds_per_megapixel:.2f}",
        "peak_memory_mib": f"{line.cost.peak_memory_mib:.0f}",
    }


def _write_csv(path: Path, lines: Sequence[Line]) -> None:
    keys, rows = list(headings()), []
    for line in lines:
        cells = [line.cells.get(key, Cell(None)) for key in keys]
        numbers = [value for cell in cells for value in (cell.mean, cell.low, cell.high, cell.n)]
        rows.append([line.name, line.kind, *numbers, *cost_texts(line).values()])
    figures = [f"{key}{end}" for key in keys for end in ("", "_low", "_high", "_n")]
    write_csv(path, ["name", "kind", *figures, *COST_TITLES], rows)


def markdown(lines: Sequence[Line], facts: Mapping[str, str]) -> str:
    """The table for a page of results, in two halves: figures, and costs."""
    titles = headings()
    text = [f"| | {' | '.join(titles.values())} |", "|---" * (len(titles) + 1) + "|"]
    for line in lines:
        shown = [str(line.cells.get(key, Cell(None))) for key in titles]
        text.append(f"| {line.name} | {' | '.join(shown)} |")
    text += ["", f"| | {' | '.join(COST_TITLES.values())} |", "|---" * (len(COST_TITLES) + 1) + "|"]
    text += [f"| {line.name} | {' | '.join(cost_texts(line).values())} |" for line in lines if line.cost]
    text += ["", *(f"- {name}: {value}" for name, value in facts.items())]
    return "\n".join(text) + "\n"


def _figures(out: Path, evaluations: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """The same crops of a few pairs, taken in turn from the levels, for every recipe."""
    summaries = list(evaluations.values())
    rows = [row for row in summaries[0].metrics["per_image"] if row["method"] == "model"]
    levels = sorted({row["level"] for row in rows})
    queues = [[row for row in rows if row["level"] == level] for level in levels]
    turns = [queue[turn] for turn in range(SHOWN_PAIRS) for queue in queues if turn < len(queue)]
    folder = make_folder(out / "figures")
    shown = []
    for row in sorted(turns[:SHOWN_PAIRS], key=lambda r: (r["level"], r["name"])):
        name, links = row["name"], []
        sources = [(summaries[0].folder / "figures" / f"{name}.{panel}.jpg", False) for panel in ("he", "real")]
        sources += [(summary.folder / "images" / f"{name}.png", True) for summary in summaries]
        for column, (source, virtual) in enumerate(sources):
            target = folder / f"{name}.{column}.jpg"
            save_picture(target, _middle(read_image(source)), virtual=virtual)
            links.append({"link": quote(f"figures/{target.name}"), "virtual": virtual})
        shown.append({"name": name, "level": row["level"], "links": links})
    return shown


def _middle(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = (max(0, (side - CROP) // 2) for side in rgb.shape[:2])
    return rgb[top : top + CROP, left : left + CROP]

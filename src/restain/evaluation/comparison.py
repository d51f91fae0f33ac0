"""Finished evaluations of the same pairs against one another: paired differences with intervals and corrected tests.

Two methods that were scored on the same images are compared image by image, since images differ far more than methods
do. Every difference is stated as a *gain*: how much better a method is than the baseline, positive where it is better, in
the figure's own unit (of the distance from zero where zero is best, of the logarithm where a ratio of one is best).
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import restain
from restain.errors import RestainError
from restain.evaluation.agreement import READINGS
from restain.evaluation.metrics import METRICS, Better, Metric, score
from restain.evaluation.summary import Evaluation, load_evaluation
from restain.files import make_folder, whole_file, write_json
from restain.report import write_page
from restain.report.plots import VERDICTS, Gain, forest_plot
from restain.statistics import RESAMPLES, holm, json_ready, mean_interval, signed_rank

Floats = NDArray[np.float64]
Row = Mapping[str, Any]

SIGNIFICANT = 0.05
"""A difference is stated where the corrected p is below this."""

FIGURES: Mapping[str, Metric] = {m.key: m for m in METRICS if m.better is not None} | {
    key: Metric(key, f"HER2 level right, by the {name}", "", 3, "amount", "higher")
    for name in READINGS
    if (key := f"reading_{name}")
}
"""What can be compared, in the order of the tables."""


_COLUMNS = (
    *("metric", "title", "unit", "better", "run", "n", "units", "mean_baseline", "mean_run"),
    *("gain", "low", "high", "better_on", "p", "p_holm", "verdict"),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One method against the baseline in one figure."""

    metric: str
    title: str
    unit: str
    digits: int
    better: Better
    run: str
    n: int
    """Images on which both are defined."""
    units: int
    """What is drawn and ranked: slides where all are known, else images."""
    mean_baseline: float
    mean_run: float
    gain: float
    """Mean over images; positive where the run is better."""
    low: float
    high: float
    """Ends of the gain's 95 % interval; NaN with a single unit."""
    better_on: int
    """Images on which the run is better."""
    p: float
    """Wilcoxon's, NaN with a single unit."""
    p_holm: float = math.nan
    """Corrected for all tests of the comparison."""

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``no difference shown``."""
        if not self.p_holm < SIGNIFICANT or self.gain == 0:
            return "no difference shown"
        return "better" if self.gain > 0 else "worse"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A finished comparison: its folder and what ``compare.json`` there holds."""

    out: Path
    result: dict[str, Any]

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.out / "compare.html"

    def describe(self) -> str:
        """The differences that stand after the correction, in a few lines."""
        result = self.result
        lines = [f"{result['images']} images{_slides(result['slides'])}; baseline: {result['baseline']}"]
        for run in result["runs"][1:]:
            own = [line for line in result["differences"] if line["run"] == run["label"]]
            differences = [
                f"{verdict} in {', '.join(found)}"
                for verdict in ("better", "worse")
                if (found := [line["title"] for line in own if line["verdict"] == verdict])
            ]
            lines.append(f"{run['label']}: {'; '.join(differences) or 'no difference shown'} ({len(own)} figures)")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Run:
    label: str
    folder: Path
    method: str
    rows: Mapping[str, Row]


def compare_runs(
    folders: Sequence[Path],
    out: Path,
    *,
    metrics: Sequence[str] = (),
    baselines: bool = False,
    seed: int = 0,
    command: str = "",
) -> Comparison:
    """Test each evaluation against the first; write ``compare.json``, ``compare.csv`` and ``compare.html``.

    The interval of a mean gain is a paired percentile bootstrap over images, or over whole slides where the slide of
    every image is known. The p-value is Wilcoxon's signed-rank test (*Biometrics Bulletin* 1:80, 1945) of the gains of
    images, or of the mean gains of slides, corrected for all tests of the page by Holm (*Scand J Stat* 6:65, 1979).

    Args:
        folders: finished evaluations of the same pairs; the first is the baseline.
        out: folder of the results; made where needed.
        metrics: keys of the figures to compare; all that the evaluations have by default.
        baselines: compare the baselines of the first evaluation too.
        seed: of the bootstrap.
        command: the command line, for the report.

    Raises:
        RestainError: if there is nothing to compare, a folder holds no evaluation, the evaluations are of different
            images, a metric is unknown, or a file cannot be written.
    """
    for key in metrics:
        if key not in FIGURES:
            raise RestainError(f"'{key}' is not a figure with a better side; those are {', '.join(FIGURES)}.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RestainError(f"An evaluation is given twice ({', '.join(map(str, folders))}).")
    runs = _runs([load_evaluation(folder) for folder in folders], baselines)
    if len(runs) < 2:
        raise RestainError("A comparison needs at least two evaluations, or --baselines beside a single one.")
    baseline = runs[0]
    chosen = [key for key in FIGURES if not metrics or key in metrics]
    found = [d for key in chosen for run in runs[1:] if (d := _difference(key, baseline, run, seed)) is not None]
    corrected = holm([d.p for d in found])
    differences = [replace(d, p_holm=p) for d, p in zip(found, corrected, strict=True)]
    compared = {d.metric for d in differences}
    slides = _slides_of(baseline)
    comparison = Comparison(
        out,
        json_ready(
            {
                "notice": restain.NOTICE,
                "baseline": baseline.label,
                "runs": [{"label": r.label, "folder": str(r.folder), "method": r.method} for r in runs],
                "images": len(baseline.rows),
                "slides": None if slides is None else len(set(slides.values())),
                "differences": [asdict(d) | {"verdict": d.verdict} for d in differences],
                "absent": [FIGURES[key].title for key in chosen if key not in compared],
                "tests": sum(not math.isnan(d.p) for d in differences),
                "definitions": {"resamples": RESAMPLES, "seed": seed, "significant": SIGNIFICANT},
                "command": command,
                "restain": restain.__version__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        ),
    )
    _write(comparison)
    return comparison


def _runs(summaries: Sequence[Evaluation], baselines: bool) -> list[_Run]:
    models = [_run(summary, "model") for summary in summaries]
    for run in models[1:]:
        _require_same_pairs(models[0], run)
    uses = Counter(run.label for run in models)
    runs = [run if uses[run.label] == 1 else replace(run, label=f"{run.label} in {run.folder}") for run in models]
    if baselines and summaries:
        methods = dict.fromkeys(row["method"] for row in summaries[0].metrics["per_image"])
        runs += [_run(summaries[0], method) for method in methods if method not in ("model", "real")]
    return runs


def _run(summary: Evaluation, method: str) -> _Run:
    try:
        rows = {row["name"]: row for row in summary.metrics["per_image"] if row["method"] == method}
        label = str(summary.metrics["model"]["label"]) if method == "model" else method
    except (KeyError, TypeError):
        raise RestainError(f"{summary.folder / 'metrics.json'} is not the result of an evaluation.") from None
    return _Run(label, summary.folder, method, rows)


def _require_same_pairs(one: _Run, other: _Run) -> None:
    strange = sorted(one.rows.keys() ^ other.rows.keys())
    if strange:
        raise RestainError(
            f"{one.folder} and {other.folder} are not of the same pairs: {strange[0]} is in one of them only"
            f"{f' (and {len(strange) - 1} more)' if len(strange) > 1 else ''}."
        )
    for name, row in one.rows.items():
        a, b = (r.get("dab_mean_real") for r in (row, other.rows[name]))
        if a is not None and b is not None and abs(a - b) > 1e-4:
            raise RestainError(
                f"{one.folder} and {other.folder} are not of the same pairs: the real image of {name} differs."
            )


def _slides_of(run: _Run) -> dict[str, str] | None:
    slides = {name: row.get("slide") for name, row in run.rows.items()}
    return {name: str(slide) for name, slide in slides.items()} if all(slides.values()) else None


def _slides(count: int | None) -> str:
    return "" if count is None else f" of {count} slide{'' if count == 1 else 's'}"


def _value(key: str, row: Row) -> float:
    if key.startswith("reading_"):
        read, level = row.get(key), row.get("level")
        return float(read == level) if read and level else math.nan
    value = row.get(key)
    return math.nan if value is None else float(value)


def _difference(key: str, baseline: _Run, run: _Run, seed: int) -> Difference | None:
    metric = FIGURES[key]
    assert metric.better is not None
    slides = _slides_of(baseline)
    names = list(baseline.rows)
    both = np.array([(_value(key, baseline.rows[k]), _value(key, run.rows[k])) for k in names]).reshape(-1, 2)
    there = np.isfinite(both).all(axis=1)
    if not there.any():
        return None
    both, kept = both[there], [name for name, is_there in zip(names, there, strict=True) if is_there]
    turned = score(both, metric.better)
    gain = turned[:, 1] - turned[:, 0]
    clusters = kept if slides is None else [slides[name] for name in kept]
    units = np.array([gain[np.array(clusters) == cluster].mean() for cluster in dict.fromkeys(clusters)])
    interval = mean_interval(gain, seed, clusters)
    return Difference(
        metric=key,
        title=metric.title,
        unit=metric.unit,
        digits=metric.digits,
        better=metric.better,
        run=run.label,
        n=len(kept),
        units=len(units),
        mean_baseline=float(both[:, 0].mean()),
        mean_run=float(both[:, 1].mean()),
        gain=float(gain.mean()),
        low=interval.low,
        high=interval.high,
        better_on=int((gain > 0).sum()),
        p=signed_rank(units),
    )


def _write(comparison: Comparison) -> None:
    result = comparison.result
    make_folder(comparison.out)
    with whole_file(comparison.out / "compare.csv") as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(result["differences"])
    runs = {f"Run {number}" if number else "Baseline": _about(run) for number, run in enumerate(result["runs"])}
    write_page(
        comparison.report,
        "compare.html.j2",
        "restain.evaluation",
        title="Paired comparison",
        result=result,
        figures=[_figure(list(lines)) for _, lines in groupby(result["differences"], key=lambda line: line["metric"])],
        facts={
            **runs,
            "Images": f"{result['images']}{_slides(result['slides'])}",
            "Command": result["command"],
            "restain": result["restain"],
            "Date": result["created"],
        },
    )
    write_json(comparison.out / "compare.json", result)


def _about(run: Mapping[str, str]) -> str:
    return f"{run['label']} ({'' if run['method'] == 'model' else 'baseline of '}{run['folder']})"


def _figure(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One metric as the page shows it: a forest plot and a row per run."""
    first, gains, rows = lines[0], [], []
    for line in lines:

        def text(key: str, line: Mapping[str, Any] = line, sign: str = "") -> str:
            return f"{line[key]:{sign}.{first['digits']}f}".replace("-", "−")

        interval = "" if line["low"] is None else f"{text('low', sign='+')} to {text('high', sign='+')}"
        gains.append(
            Gain(line["verdict"], *(math.nan if line[k] is None else line[k] for k in ("gain", "low", "high")))
        )
        rows.append(
            {
                "run": line["run"],
                "baseline": text("mean_baseline"),
                "value": text("mean_run"),
                "gain": text("gain", sign="+"),
                "interval": interval,
                "better_on": f"{line['better_on']} of {line['n']}",
                "p": _p(line["p"]),
                "p_holm": _p(line["p_holm"]),
                "verdict": f"{VERDICTS[line['verdict']][1]} {line['verdict']}",
            }
        )
    plot = forest_plot(gains, f"gain in {first['title']} with 95 % interval")
    return {key: first[key] for key in ("title", "unit", "better")} | {"plot": plot, "rows": rows}


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"

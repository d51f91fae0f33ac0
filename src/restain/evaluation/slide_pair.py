"""A virtual slide against the real one: brought into register, measured field by field, shown as heat maps."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

import restain
from restain.errors import RestainError
from restain.evaluation import stain
from restain.evaluation.baselines import he_densities
from restain.evaluation.metrics import BY_KEY, METRICS, POOLED, POOLED_WIDE
from restain.evaluation.scoring import Scorer, deconvolved
from restain.evaluation.stain import Moments
from restain.evaluation.summary import pooled_interval
from restain.files import journal, make_folder, read_journal, whole_file, write_json
from restain.geometry import Point, Region, Size, um_to_px
from restain.images import Rgb, write_png
from restain.prediction import Prediction
from restain.progress import Progress, part
from restain.registration import Transform, Verdict, read_transform, register_slides, warp_region, write_transform
from restain.report import burn_notice, colour_scale, css_gradient, write_page
from restain.report.slide_map import Square, slide_map
from restain.slides import DensitySlide, Slide, TissueMask, open_slide, tissue_mask
from restain.slides.find import split_number
from restain.statistics import json_ready

FIELD_UM = 250.0
"""Side of a field: large enough for a correlation over two hundred cells of 16 µm."""
LEAST_TISSUE = 0.25
"""Fields with a smaller share of tissue, on either slide, are left out."""
PICTURE_PX = 900
"""Longer side of the overviews."""

SHOWN = tuple(m for m in METRICS if m.group in ("where", "amount", "white"))
"""The figures of a field: all that say something of the stain. PSNR and the like are left to pairs that match."""


BASELINES = {
    "he": "the H&E's own hematoxylin",
    "he_smooth": "the same, smoothed by 24 µm",
    "density_smooth": "the H&E's optical density, smoothed by 24 µm",
}
"""Maps of the H&E that stand beside the virtual slide's DAB, in the order of :func:`he_densities`."""

MAPS = (
    ("dab_mean_virtual", "dab", 0.3, "virtual"),
    ("dab_mean_real", "dab", 0.3, "real"),
    ("dab_mean_error", "difference", 0.15, "virtual"),
    ("dab_r16", "difference", 1.0, "virtual"),
)
"""The heat maps: metric, colour scale, value at its end, picture beneath. A field's mean DAB is below a membrane's."""


@dataclass(frozen=True)
class Field:
    """One field: its place in px of the virtual slide, its figures by the keys of ``SHOWN``, its sums over cells."""

    region: Region
    values: dict[str, float]
    moments: dict[str, Moments]


def compare_slides(
    virtual: Path,
    real: Path,
    out: Path,
    *,
    he: Path | None = None,
    mpp: float | None = None,
    override_mpp: bool = False,
    transform: Path | None = None,
    side_um: float = FIELD_UM,
    command: str = "",
    progress: Progress | None = None,
) -> Path:
    """Compare a virtual IHC slide with a real one; returns the page ``out/slides.html``.

    The real slide is laid on the virtual one (:func:`restain.registration.register_slides`, or ``transform``) and read on its
    grid. Every field with tissue on both is scored as the evaluation scores an image (:class:`restain.evaluation.scoring.Scorer`).
    The virtual slide's DAB is its own map where ``NAME.dab.ome.tiff`` lies beside it, else deconvolved like the real
    one's. Beside the page: ``slides.json``, ``fields.csv``, ``pictures/``, ``transform/``. The same call after an
    interruption resumes with the next field.

    Args:
        virtual: what :func:`restain.stain.stain_slide` wrote, or another virtual slide.
        real: the chemically stained slide, of the same section or a neighbouring one.
        out: folder of the results, made where needed.
        he: the H&E slide that the virtual one was made from; adds the baseline, its hematoxylin.
        mpp: micrometres per pixel of the real slide, where it does not say.
        override_mpp: take ``mpp`` also where the real slide states another.
        transform: a file as :func:`restain.registration.read_transform` takes it, from the virtual slide to the real one.
        side_um: side of a field.
        command: the command line, for the page.
        progress: called with thousandths done and 1000.

    Raises:
        RestainError: if a slide cannot be read or has no mpp, the two do not show the same tissue, no field has tissue on
            both, or the results cannot be written.
    """
    make_folder(out)
    make_folder(out / "pictures")

    with open_slide(virtual) as ours, open_slide(real, mpp, override_mpp=override_mpp) as theirs:
        found = _registered(ours, theirs, out / "transform", transform, part(progress, 0, 300))
        masks = tissue_mask(ours), tissue_mask(theirs)
        pair = _Pair(ours, theirs, found, masks, virtual.parent / _dab_name(virtual), he)
        regions = list(pair.regions(side_um))
        if not regions:
            raise RestainError(f"{virtual} and {real}: no field has tissue on both slides.")
        fields = list(_measured(pair, regions, out / "fields.part.jsonl", part(progress, 300, 980)))
        pictures = _pictures(pair, out / "pictures")
        result = _result(pair, fields, side_um, command, transform)
    result = json_ready(result)
    write_json(out / "slides.json", result)
    _write_fields(out / "fields.csv", fields)
    page = _write_page(out / "slides.html", result, fields, pictures)
    (out / "fields.part.jsonl").unlink(missing_ok=True)
    return page


class _Pair:
    def __init__(
        self,
        virtual: Slide,
        real: Slide,
        transform: Transform,
        masks: tuple[TissueMask, TissueMask],
        dab: Path,
        he: Path | None,
    ) -> None:
        self.virtual, self.real, self.transform = virtual, real, transform
        self.tissue, self.real_tissue = masks
        self.mpp = virtual.mpp
        self.white = self.real_tissue.glass
        self.dab = DensitySlide(dab) if dab.is_file() else None
        if self.dab is not None and self.dab.size != virtual.size:
            raise RestainError(f"{dab} is of another size than {virtual.path}.")
        self.he = None if he is None else open_slide(he)
        self.he_glass = None if self.he is None else tissue_mask(self.he).glass

    def regions(self, side_um: float) -> Iterator[Region]:
        """Fields with tissue on both slides, row by row."""
        side, size = um_to_px(side_um, self.mpp), self.virtual.size
        for y in range(0, size.height - side // 2, side):
            for x in range(0, size.width - side // 2, side):
                region = Region(Point(x, y), Size(min(side, size.width - x), min(side, size.height - y)))
                shared = self.tissue.covers(region, self.mpp) >= LEAST_TISSUE
                if shared and self._really(region) >= LEAST_TISSUE:
                    yield region

    def _really(self, region: Region) -> float:
        """The share of a field that is tissue on the real slide, by a grid of points."""
        steps = (np.arange(16) + 0.5) / 16
        across, down = np.meshgrid(
            region.origin.x + steps * region.size.width, region.origin.y + steps * region.size.height
        )
        there = self.transform.forward(np.column_stack([across.ravel(), down.ravel()]))
        columns, rows = np.floor(there * self.real.mpp / self.real_tissue.mpp).astype(int).T
        height, width = self.real_tissue.mask.shape
        inside = (rows >= 0) & (columns >= 0) & (rows < height) & (columns < width)
        return float(self.real_tissue.mask[rows[inside], columns[inside]].sum() / len(there))

    def warped(self, region: Region, mpp: float) -> Rgb:
        red, green, blue = (int(v) for v in np.rint(self.white))
        return warp_region(self.real, self.transform, region, mpp, outside=(red, green, blue))

    def measure(self, region: Region) -> Field:
        scorer = Scorer(deconvolved(self.warped(region, self.mpp), self.white), self.mpp)
        dab = None if self.dab is None else self.dab.read(region)
        values, moments = scorer(Prediction(self.virtual.read(region, self.mpp), dab))
        kept = {key: moments[key] for key in (POOLED.key, POOLED_WIDE.key)}
        if self.he is not None:
            assert self.he_glass is not None
            maps = he_densities(self.he.read(region, self.mpp), self.he_glass, self.mpp)
            for name, density in zip(BASELINES, maps, strict=True):
                for side, cell_um in (("r16", stain.CELL_UM), ("r64", stain.WIDE_CELL_UM)):
                    kept[f"{name}_{side}"] = stain.cell_moments(density, scorer.reference.dab, self.mpp, cell_um)
        return Field(region, {metric.key: values[metric.key] for metric in SHOWN}, kept)


def _dab_name(virtual: Path) -> str:
    from restain.stain import slide_name

    return f"{slide_name(virtual)}.dab.ome.tiff"


def _registered(virtual: Slide, real: Slide, folder: Path, given: Path | None, progress: Progress) -> Transform:
    if given is not None:
        # A bare matrix does not say its slides' mpp.
        return replace(read_transform(given), fixed_mpp=virtual.mpp, moving_mpp=real.mpp)
    if (folder / "transform.json").is_file():
        kept = read_transform(folder)
        if (kept.fixed_size, kept.moving_size) == (virtual.size, real.size):
            return kept
    found = register_slides(virtual, real, progress=progress)
    if found.verdict is not Verdict.ACCEPTED:
        raise RestainError(
            f"{virtual.path} and {real.path} are a doubtful pair: they may show different tissue. Register them with 'restain "
            "register', inspect the result, and pass it with --transform."
        )
    write_transform(folder, found.transform, (virtual.path.name, real.path.name))
    return found.transform


def _measured(pair: _Pair, regions: list[Region], kept: Path, progress: Progress) -> Iterator[Field]:
    """Fields one by one; each is written down when it is measured, and not measured again."""
    key = {
        "slides": [[str(s.path), split_number(s.path)[0].stat().st_mtime_ns] for s in (pair.virtual, pair.real)],
        "he": None if pair.he is None else str(pair.he.path),
        "matrix": pair.transform.matrix.tolist(),
        "side": len(regions),
        "version": restain.__version__,
    }
    before = {field.region: field for entry in read_journal(kept, key) or [] if (field := _parsed(entry)) is not None}
    with journal(kept, key, map(_line, before.values())) as append:
        for number, region in enumerate(regions):
            progress(number, len(regions))
            field = before.get(region)
            if field is None:
                field = pair.measure(region)
                append(_line(field))
            yield field


def _line(field: Field) -> dict[str, Any]:
    box = field.region
    return {
        "region": [box.origin.x, box.origin.y, box.size.width, box.size.height],
        "values": field.values,
        "moments": {key: astuple(value) for key, value in field.moments.items()},
    }


def _parsed(kept: dict[str, Any]) -> Field | None:
    """The field of a journal's entry; None for a damaged one."""
    try:
        x, y, width, height = kept["region"]
        moments = {key: Moments(*values) for key, values in kept["moments"].items()}
        return Field(Region(Point(x, y), Size(width, height)), kept["values"], moments)
    except (ValueError, KeyError, TypeError):
        return None


def _result(pair: _Pair, fields: list[Field], side_um: float, command: str, transform: Path | None) -> dict[str, Any]:
    pooled = {
        key: pooled_interval([field.moments[key] for field in fields]) if key in fields[0].moments else None
        for key in (POOLED.key, POOLED_WIDE.key, *(f"{name}_{side}" for name in BASELINES for side in ("r16", "r64")))
    }
    area = np.array([field.region.size.width * field.region.size.height for field in fields], float)

    def mean(key: str) -> float:
        values = np.array([field.values[key] for field in fields])
        known = np.isfinite(values)
        return float(np.average(values[known], weights=area[known])) if known.any() else float("nan")

    return {
        "notice": restain.NOTICE,
        "version": restain.__version__,
        "command": command,
        "virtual": pair.virtual.path.name,
        "real": pair.real.path.name,
        "he": None if pair.he is None else pair.he.path.name,
        "registration": "restain" if transform is None else transform.name,
        "virtual_dab": "its own map" if pair.dab is not None else "deconvolution",
        "mpp": pair.mpp,
        "side_um": side_um,
        "size_px": [pair.virtual.size.width, pair.virtual.size.height],
        "white": [float(v) for v in pair.white],
        "fields": len(fields),
        "area_mm2": float(area.sum()) * pair.mpp**2 / 1e6,
        "pooled": pooled,
        "means": {metric.key: mean(metric.key) for metric in SHOWN},
    }


def _write_fields(path: Path, fields: list[Field]) -> None:
    with whole_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["x", "y", "width", "height", *(metric.key for metric in SHOWN)])
        for field in fields:
            box, values = field.region, (field.values[metric.key] for metric in SHOWN)
            cells = [f"{value:.6g}" if np.isfinite(value) else "" for value in values]
            table.writerow([box.origin.x, box.origin.y, box.size.width, box.size.height, *cells])


def _pictures(pair: _Pair, folder: Path) -> Mapping[str, Path]:
    """Overviews of both slides on one grid, the virtual one marked."""
    step = max(1.0, max(pair.virtual.size.width, pair.virtual.size.height) / PICTURE_PX)
    mpp = pair.mpp * step
    whole = Region(Point(0, 0), pair.virtual.size_at(mpp))
    found = {"virtual": pair.virtual.read(whole, mpp), "real": pair.warped(whole, mpp)}
    paths = {}
    for name, rgb in found.items():
        marked = np.asarray(burn_notice(Image.fromarray(rgb))) if name == "virtual" else rgb
        paths[name] = folder / f"{name}.png"
        write_png(paths[name], marked, {"notice": restain.NOTICE} if name == "virtual" else {}, mpp)
    return paths


def _write_page(path: Path, result: Mapping[str, Any], fields: list[Field], pictures: Mapping[str, Path]) -> Path:
    maps = [
        {
            "title": BY_KEY[key].title,
            "unit": BY_KEY[key].unit,
            "picture": _heat_map(
                fields, key, scale, top, Size(*result["size_px"]), f"pictures/{pictures[beneath].name}"
            ),
            "gradient": css_gradient(scale),
            "top": f"{top:g}",
        }
        for key, scale, top, beneath in MAPS
    ]
    return write_page(
        path,
        "slide_pair.html.j2",
        "restain.evaluation",
        title=f"{result['virtual']} against {result['real']}",
        result=result,
        pooled={key: _interval_text(value) for key, value in result["pooled"].items()},
        baselines=BASELINES,
        maps=maps,
        rows=[(BY_KEY[key], BY_KEY[key].text(value)) for key, value in result["means"].items()],
        facts={
            "Virtual slide": f"{result['virtual']}, DAB by {result['virtual_dab']}",
            "Real slide": result["real"],
            "Registration": result["registration"],
            "Fields": f"{result['fields']} of {result['side_um']:g} µm, {result['area_mm2']:.1f} mm²",
            "Command": result["command"] or "from Python",
        },
    )


def _heat_map(fields: list[Field], key: str, scale: str, top: float, size: Size, picture: str) -> Markup:
    """The slide with a square per field; fields without the figure are a frame only."""
    metric, colours, squares = BY_KEY[key], colour_scale(scale), []
    for field in fields:
        value, at, colour = field.values[key], field.region.origin, "none"
        if known := bool(np.isfinite(value)):
            colour = "#{:02x}{:02x}{:02x}".format(*colours[int(np.clip(round(value / top * 255), 0, 255))])
        text = f"{metric.title}: {metric.text(value if known else None)} {metric.unit}; x {at.x}, y {at.y} px"
        squares.append(Square(field.region, colour, text))
    return slide_map(size, squares, metric.title, picture)


def _interval_text(found: Mapping[str, float] | None) -> str | None:
    if found is None:
        return None
    mean, low, high = (POOLED.text(found[key]) for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"

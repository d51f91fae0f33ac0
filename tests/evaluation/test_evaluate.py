from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import restain
from restain.data import open_pairs
from restain.errors import RestainError
from restain.evaluation import Evaluation
from restain.evaluation import evaluate as evaluate_all
from restain.evaluation.baselines import DESCRIPTIONS, MAP_ONLY
from restain.evaluation.metrics import COLUMNS, group
from restain.her2 import Her2Level
from restain.images import write_png
from restain.optics import DAB, HEMATOXYLIN, dab_density, glass_white, mix, transmit
from restain.phantom import read_truth, write_phantom
from restain.prediction import Prediction
from restain.slides import read_image
from restain.stain import load

# Features of a network take longer than all else together; one test asks for them.
evaluate = partial(evaluate_all, features=None)

SIZE = 96
MPP = 1.0
NAMES = {
    "train": ["00000_train_0", "00001_train_3+", "00002_train_2+"],
    "test": ["00000_test_0", "00001_test_3+", "00002_test_3+"],
}


class Model:
    """Answers by a function of the H&E."""

    label = "test model"

    def __init__(self, answer: Callable[[NDArray[np.uint8]], Prediction]) -> None:
        self.answer = answer

    def predict(self, he: NDArray[np.uint8]) -> Prediction:
        return self.answer(he)


IDENTITY = Model(lambda he: Prediction(he))


def stained(seed: int, strength: float) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    dab = np.kron(rng.random((6, 6)) > 0.5, np.ones((16, 16))) * strength
    nuclei = (rng.random((SIZE, SIZE)) > 0.9) * 0.3
    return transmit(mix(np.stack([nuclei, dab], axis=-1), (HEMATOXYLIN, DAB)), 240).round().astype(np.uint8)


def write_data(root: Path, splits: tuple[str, ...] = ("train", "test")) -> Path:
    for split in splits:
        for number, name in enumerate(NAMES[split]):
            seed = number + 10 * (split == "test")
            strength = 0.0 if name.endswith("_0") else 0.6
            for stain, image in (
                ("IHC", stained(seed, strength)),
                ("HE", stained(seed + 50, 0.4)[..., ::-1]),
            ):
                (root / stain / split).mkdir(parents=True, exist_ok=True)
                write_png(root / stain / split / f"{name}.png", np.ascontiguousarray(image))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def out(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("result") / "new" / "folder"
    evaluate(
        IDENTITY,
        open_pairs(data),
        "test",
        folder,
        mpp=MPP,
        command="restain evaluate x",
    )
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "per_image.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def strict_json(path: Path) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_per_image_csv_has_a_row_per_image_and_method(out: Path) -> None:
    rows = table(out)
    assert list(rows[0])[:5] == ["name", "level", "method", "psnr", "ssim"]
    for column in ("dab_r16", "dab_mean_virtual", "dab_mean_real", "background_de", "background_db"):
        assert column in rows[0]
    methods = ["model", *DESCRIPTIONS]
    assert [(r["name"], r["method"]) for r in rows] == [(name, m) for name in NAMES["test"] for m in methods]
    assert [r["level"] for r in rows[:: len(methods)]] == ["0", "3+", "3+"]


def test_psnr_and_ssim_are_scikit_images(data: Path, out: Path) -> None:
    for row in table(out):
        if row["method"] == "model":
            he, ihc = (read_image(data / stain / "test" / f"{row['name']}.png") for stain in ("HE", "IHC"))
            assert float(row["psnr"]) == pytest.approx(peak_signal_noise_ratio(ihc, he), rel=1e-5)
            assert float(row["ssim"]) == pytest.approx(structural_similarity(ihc, he, channel_axis=2), rel=1e-5)


def test_the_flat_oracle_is_the_real_images_own_mean(data: Path, out: Path) -> None:
    row = next(r for r in table(out) if r["method"] == "oracle_flat")
    real = read_image(data / "IHC" / "test" / f"{row['name']}.png")
    mean = np.broadcast_to(real.mean(axis=(0, 1)).round().astype(np.uint8), real.shape)
    assert float(row["psnr"]) == pytest.approx(peak_signal_noise_ratio(real, mean), rel=1e-5)


def test_r_is_undefined_without_a_pattern_and_zero_for_a_flat_answer(out: Path) -> None:
    by_key = {(row["name"], row["method"]): row["dab_r16"] for row in table(out)}
    assert by_key["00001_test_3+", "oracle_flat"] == "0"
    assert by_key["00001_test_3+", "model"] not in ("", "0")


def test_metrics_json_is_valid_and_every_mean_has_n_and_an_interval_around_it(out: Path) -> None:
    metrics = strict_json(out / "metrics.json")
    assert metrics["overall"]["model"]["psnr"]["n"] == 3
    assert set(metrics["levels"]) == {"0", "3+"}
    assert metrics["levels"]["3+"]["model"]["psnr"]["n"] == 2
    for method, line in metrics["overall"].items():
        for key, figure in line.items():
            assert set(figure) == {"mean", "low", "high", "n"}, (method, key)
            if figure["low"] is not None:
                assert figure["low"] - 1e-9 <= figure["mean"] <= figure["high"] + 1e-9, (method, key)
    own = [float(r["psnr"]) for r in table(out) if r["method"] == "model"]
    assert metrics["overall"]["model"]["psnr"]["mean"] == pytest.approx(np.mean(own), rel=1e-4)
    assert metrics["dab_reference"] == {"truth": 0, "deconvolution": 3}
    assert metrics["absent"] == {}
    assert metrics["model"] == {"label": "test model"}
    assert metrics["definitions"]["cell_px"] == 16


def test_virtual_images_are_kept_whole_with_the_notice_in_them(data: Path, out: Path) -> None:
    path = out / "images" / f"{NAMES['test'][1]}.png"
    assert np.array_equal(read_image(path), read_image(data / "HE" / "test" / path.name))
    text = Image.open(path).text  # type: ignore[attr-defined]
    assert text["notice"] == restain.NOTICE
    assert text["model"] == "test model"


def test_figures_of_virtual_pictures_have_the_notice_burnt_in(out: Path) -> None:
    virtual, plain = (
        np.asarray(Image.open(out / "figures" / f"{NAMES['test'][0]}.{panel}.jpg").convert("L"))
        for panel in ("virtual", "he")
    )
    assert virtual.shape == plain.shape
    assert np.median(virtual[-8:]) < 60 < np.median(plain[-8:])


def test_the_same_evaluation_gives_the_same_figures(data: Path, out: Path, tmp_path: Path) -> None:
    again = evaluate(IDENTITY, open_pairs(data), "test", tmp_path, mpp=MPP)
    first = strict_json(out / "metrics.json")
    assert again.metrics["overall"] == first["overall"]
    assert (tmp_path / "per_image.csv").read_bytes() == (out / "per_image.csv").read_bytes()


def test_a_stopped_evaluation_resumes_with_the_next_image_and_gives_the_same_figures(
    data: Path, out: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in NAMES["test"]:
        write_png(images / f"{name}.png", read_image(data / "HE" / "test" / f"{name}.png"))

    def stop(done: int, total: int) -> None:
        if done == total - 1:
            raise KeyboardInterrupt

    again = partial(evaluate, None, open_pairs(data), "test", tmp_path / "out", images=images, mpp=MPP)
    with pytest.raises(KeyboardInterrupt):
        again(progress=stop)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "scores").iterdir()}
    assert {f"{name}.npz" for name in NAMES["test"][:2]} <= set(kept)
    resumed: list[dict[str, int]] = []

    def look(done: int, total: int) -> None:
        resumed.append({path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "scores").iterdir()})

    found = again(progress=look)
    assert all(resumed[-1][name] == time for name, time in kept.items())
    assert found.metrics["overall"] == strict_json(out / "metrics.json")["overall"]
    assert not (tmp_path / "out" / "scores").exists()
    write_png(images / f"{NAMES['test'][0]}.png", np.full((SIZE, SIZE, 3), 9, np.uint8))
    assert again().metrics["overall"] != found.metrics["overall"]


def test_a_quick_evaluation_gives_the_same_figures_for_fewer_metrics(data: Path, out: Path) -> None:
    quick = evaluate(IDENTITY, open_pairs(data), "test", mpp=MPP, quick=True).metrics["overall"]
    whole = strict_json(out / "metrics.json")["overall"]["model"]
    assert set(quick) == {"model"}
    for key in ("psnr", "ssim", "dab_r16", "dab_mean_error", "background_de"):
        assert quick["model"][key] == whole[key]
    assert quick["model"]["lpips"]["mean"] is quick["model"]["completeness_error"]["mean"] is None


@pytest.mark.slow
def test_worker_processes_give_the_same_figures(data: Path, out: Path, tmp_path: Path) -> None:
    found = evaluate(IDENTITY, open_pairs(data), "test", tmp_path, mpp=MPP, workers=2)
    first = strict_json(out / "metrics.json")
    assert found.metrics["overall"] == first["overall"]
    assert found.metrics["reading"] == first["reading"]


@pytest.mark.slow
def test_baselines_are_fitted_on_the_training_split_only(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    before = evaluate(IDENTITY, open_pairs(data), "test", tmp_path / "before", mpp=MPP).metrics["fit"]
    for path in (data / "IHC" / "test").iterdir():
        write_png(path, np.full((SIZE, SIZE, 3), 60, np.uint8))
    after = evaluate(IDENTITY, open_pairs(data), "test", tmp_path / "after", mpp=MPP).metrics["fit"]
    assert after == before
    for path in (data / "IHC" / "train").iterdir():
        write_png(path, np.full((SIZE, SIZE, 3), 60, np.uint8))
    changed = evaluate(IDENTITY, open_pairs(data), "test", tmp_path / "changed", mpp=MPP).metrics["fit"]
    assert changed["mean"] == [60, 60, 60]


@pytest.mark.slow
def test_without_a_training_split_their_rows_are_absent_with_the_reason(tmp_path: Path) -> None:
    pairs = open_pairs(write_data(tmp_path / "data", ("test",)))
    summary = evaluate(IDENTITY, pairs, "test", tmp_path / "out", mpp=MPP)
    reason = dict.fromkeys(("baseline_hematoxylin", "baseline_mean", "baseline_linear"), "no training split")
    assert strict_json(tmp_path / "out" / "metrics.json")["absent"] == reason
    assert {row["method"] for row in table(tmp_path / "out")} == {
        "model",
        "baseline_he",
        "blurred_model",
        "oracle_flat",
        *MAP_ONLY,
    }
    assert "absent: no training split" in summary.report.read_text(encoding="utf-8")

    other = open_pairs(write_data(tmp_path / "other"))
    fitted = evaluate(IDENTITY, pairs, "test", tmp_path / "fitted", mpp=MPP, fit_on=other)
    assert fitted.metrics["absent"] == {}
    assert fitted.metrics["overall"]["baseline_linear"]["psnr"]["n"] == 3


def test_scoring_the_training_split_fits_nothing_on_it(data: Path, tmp_path: Path) -> None:
    summary = evaluate(IDENTITY, open_pairs(data, val_share=0), "train", tmp_path, mpp=MPP)
    assert summary.metrics["absent"]["baseline_linear"] == "the training split is what is scored"


def test_pictures_of_any_other_tool(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in NAMES["test"]:
        Image.fromarray(read_image(data / "IHC" / "test" / f"{name}.png")).save(folder / f"{name}.tif")
    summary = evaluate(None, open_pairs(data), "test", tmp_path / "out", images=folder, mpp=MPP)
    own = [row for row in table(tmp_path / "out") if row["method"] == "model"]
    assert [row["psnr"] for row in own] == ["inf"] * 3
    assert [float(row["ssim"]) for row in own] == [1.0] * 3
    assert summary.metrics["identical_images"] == 3
    assert summary.mean("psnr") is None
    assert summary.mean("dab_r16_pooled") == pytest.approx(1.0)
    strict_json(tmp_path / "out" / "metrics.json")


def test_a_missing_picture_is_named(data: Path, tmp_path: Path) -> None:
    write_png(tmp_path / f"{NAMES['test'][0]}.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    with pytest.raises(RestainError, match=r"no image 00001_test_3\+\.png \(nor 1 more\)"):
        evaluate(None, open_pairs(data), "test", tmp_path / "out", images=tmp_path)
    with pytest.raises(RestainError, match="no such folder"):
        evaluate(None, open_pairs(data), "test", tmp_path / "out", images=tmp_path / "nowhere")


def test_a_picture_of_a_wrong_size_is_named(data: Path, tmp_path: Path) -> None:
    for name in NAMES["test"]:
        write_png(tmp_path / f"{name}.png", np.zeros((SIZE, SIZE // 2, 3), np.uint8))
    with pytest.raises(RestainError, match=rf"{NAMES['test'][0]}\.png is 48x96 px, its real image 96x96"):
        evaluate(None, open_pairs(data), "test", tmp_path / "out", images=tmp_path)


def test_an_empty_split_is_named_with_those_there_are(tmp_path: Path) -> None:
    pairs = open_pairs(write_data(tmp_path / "data", ("test",)))
    with pytest.raises(RestainError, match=r"no pairs in the split 'train'; it has test \(3\)"):
        evaluate(IDENTITY, pairs, "train", tmp_path / "out")
    with pytest.raises(RestainError, match="no pairs in the split 'all'"):
        evaluate(IDENTITY, pairs, "all", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_phantoms_truth_is_the_reference_and_the_models_own_dab_is_scored(tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", pairs=2, size=128, levels=[Her2Level.THREE], seed=1, test_share=0.5, workers=1)
    pairs = open_pairs(tmp_path / "data", val_share=0)
    truths = iter([read_truth(tmp_path / "data" / "truth" / "test" / f"{p.name}.tif") for p in pairs.split("test")])
    perfect = Model(lambda he: Prediction(he, next(truths)))
    summary = evaluate(perfect, pairs, "test", tmp_path / "out", mpp=0.46)
    assert summary.metrics["dab_reference"] == {"truth": 1, "deconvolution": 0}
    assert summary.mean("dab_r16_pooled") == pytest.approx(1.0)
    assert summary.mean("dab_mean_error") == pytest.approx(0.0, abs=1e-9)


def test_a_yellow_cast_counts_as_dab_and_as_yellow(data: Path, tmp_path: Path) -> None:
    pairs = open_pairs(data)
    real = iter([pair.load()[1] for pair in pairs.split("test")])
    cast = Model(lambda he: Prediction((next(real) * np.array([1, 0.98, 0.9])).astype(np.uint8)))
    summary = evaluate(cast, pairs, "test", tmp_path, mpp=MPP)
    shift, virtual, true = (summary.mean(key) for key in ("background_db", "dab_mean_virtual", "dab_mean_real"))
    assert shift is not None
    assert shift > 3
    assert virtual is not None
    assert true is not None
    assert virtual > true + 0.02


def test_the_reference_without_truth_is_colour_deconvolution_under_the_real_white(data: Path, out: Path) -> None:
    for row in table(out):
        real = read_image(data / "IHC" / "test" / f"{row['name']}.png")
        expected = dab_density(real, glass_white(real)).mean()
        assert float(row["dab_mean_real"]) == pytest.approx(expected, rel=1e-4)


def test_progress_counts_fits_and_images(data: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pairs = open_pairs(data, val_share=0)
    evaluate(IDENTITY, pairs, "test", tmp_path, mpp=MPP, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 6) for i in range(1, 7)]


def test_not_both_model_and_pictures(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of the two"):
        evaluate(IDENTITY, open_pairs(data), "test", tmp_path, images=tmp_path)
    with pytest.raises(ValueError, match="made uint8"):
        evaluate(Model(lambda he: Prediction(he[:5])), open_pairs(data), "test", tmp_path)


def test_no_partial_file_stays(out: Path) -> None:
    assert not [path for path in out.rglob("*") if "part" in path.name]
    assert len(list((out / "figures").glob("*.jpg"))) == 7 * len(NAMES["test"])


def test_baselines_and_alignment_can_be_left_out(data: Path, tmp_path: Path) -> None:
    pairs = open_pairs(data)
    summary = evaluate(IDENTITY, pairs, "test", tmp_path, mpp=MPP, baselines=False, align=False)
    assert set(summary.metrics["overall"]) == {"model"}
    assert summary.metrics["fit"] is None
    assert summary.metrics["win_table"] == []
    assert summary.mean("psnr_aligned") is None
    assert "After alignment" not in summary.report.read_text(encoding="utf-8")


def test_only_the_answers_that_are_named_are_aligned(out: Path) -> None:
    metrics = strict_json(out / "metrics.json")
    aligned = {method for method, line in metrics["overall"].items() if line["psnr_aligned"]["n"]}
    assert aligned == set(metrics["definitions"]["aligned"]) == {"model", "baseline_hematoxylin"}
    for row in table(out):
        if row["method"] == "model" and row["moved_um"] == "0":
            assert row["psnr_aligned"] == row["psnr"]


def test_every_answer_goes_through_every_figure(out: Path) -> None:
    metrics = strict_json(out / "metrics.json")
    keys = {m.key for m in COLUMNS if m.group != "aligned"} - {"lpips", "ms_ssim", "dab_r64", "dab_r64_pooled"}
    of_maps = keys & {m.key for m in group("where", "amount")} | {"background_spread", "background_noise"}
    for method, line in metrics["overall"].items():
        assert {key for key in keys if line[key]["n"]} == (of_maps if method in MAP_ONLY else keys), method
    flat, blur = metrics["overall"]["oracle_flat"], metrics["overall"]["blurred_model"]
    assert flat["sharpness"]["mean"] == 0
    assert blur["sharpness"]["mean"] < 0.3 * metrics["overall"]["model"]["sharpness"]["mean"]


def test_figures_without_a_network_are_absent_with_the_reason(out: Path) -> None:
    metrics = strict_json(out / "metrics.json")
    assert metrics["distribution"] is None
    assert metrics["overall"]["model"]["lpips"] == {"mean": None, "low": None, "high": None, "n": 0}
    assert "--features" in metrics["extractors"]["distribution"]["absent"]
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "FID, KID and Inception Score are absent: no feature network was given" in text
    assert "LPIPS is absent" in text


def test_figures_of_a_network_carry_its_name(data: Path, tmp_path: Path) -> None:
    summary = evaluate(
        IDENTITY, open_pairs(data), "test", tmp_path, mpp=MPP, features="efficientnet-lite0", align=False
    )
    found = summary.metrics["distribution"]
    assert found["extractor"] == "efficientnet-lite0"
    assert set(found["methods"]) == {"real", "model", *DESCRIPTIONS} - set(MAP_ONLY)
    assert found["methods"]["model"]["fid"]["mean"] > 0
    assert summary.metrics["overall"]["model"]["lpips"]["n"] == 3
    text = summary.report.read_text(encoding="utf-8")
    for name in ("FID (efficientnet-lite0)", "KID (efficientnet-lite0)", "LPIPS (efficientnet-lite0, unweighted)"):
        assert name in text
    assert "3 crops of at most 256 px from 3 images" in text


def test_levels_are_read_from_every_answer_and_from_the_real_image(out: Path) -> None:
    metrics = strict_json(out / "metrics.json")
    reading = metrics["reading"]
    assert reading["label"]
    assert set(reading) == {"label", "real", "model", *DESCRIPTIONS} - set(MAP_ONLY)
    assert reading["real"]["rule"]["patch"]["n"] == 3
    for row in metrics["per_image"]:
        if row["method"] in MAP_ONLY:
            continue
        assert Her2Level.parse(row["reading_classifier"]) in Her2Level
        assert Her2Level.parse(row["reading_rule"]) in Her2Level
    assert "slide" in metrics["per_image"][0]
    assert reading["label"] in (out / "report.html").read_text(encoding="utf-8")


def test_a_folder_that_is_no_classifier_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RestainError, match="is not a classifier"):
        evaluate(IDENTITY, open_pairs(data), "test", tmp_path, mpp=MPP, classifier=tmp_path)


@pytest.mark.slow
def test_without_a_folder_no_files_stay_and_rows_become_a_table(data: Path) -> None:
    seen = evaluate(IDENTITY, open_pairs(data), mpp=MPP)
    assert seen.out is None
    assert seen.summary["model"]["psnr"].mean == pytest.approx(seen.mean("psnr"))
    assert "psnr" in seen.metrics["overall"]["model"]
    with pytest.raises(RestainError, match="No files"):
        _ = seen.report
    pandas = pytest.importorskip("pandas")
    frame = seen.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(seen.metrics["per_image"]) == 3 * (1 + len(DESCRIPTIONS))


def test_without_pandas_it_is_one_sentence(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RestainError, match="needs pandas; install it with 'pip install pandas'"):
        Evaluation(None, {"per_image": []}).to_pandas()


def test_smoothed_densities_of_the_he_are_baselines_of_the_map_alone(out: Path) -> None:
    rows = {(row["name"], row["method"]): row for row in table(out)}
    for method in MAP_ONLY:
        row = rows["00001_test_3+", method]
        assert -1 <= float(row["dab_r16"]) <= 1
        assert row["psnr"] == row["reading_rule"] == ""


@pytest.mark.slow
def test_a_model_by_its_name_and_data_by_a_path_are_opened(data: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", pairs=2, size=128, levels=[Her2Level.THREE], seed=1, test_share=0.5, workers=1)
    scores = evaluate(None, str(tmp_path / "data"), out=str(tmp_path / "out"))
    assert scores.metrics["model"]["bundle_hash"]
    assert scores.report.is_file()
    again = evaluate(load(), [tmp_path / "data"])
    assert again.metrics["overall"] == scores.metrics["overall"]

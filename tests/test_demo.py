from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain.demo import run_demo


@pytest.mark.slow
def test_the_demo_ends_in_one_page_with_phantom_and_real_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("valA", "valB"):
        (tmp_path / "real" / "mist" / folder).mkdir(parents=True)
        pixels = rng.integers(150, 250, (96, 96, 3), dtype=np.uint8)
        for number in range(1, 3):
            Image.fromarray(pixels).save(tmp_path / "real" / "mist" / folder / f"S{number}_1.png")
    (tmp_path / "real" / "no data set").mkdir()
    said: list[str] = []
    told: list[int] = []
    page = run_demo(
        tmp_path / "out",
        real=tmp_path / "real",
        pairs=4,
        real_pairs=1,
        progress=lambda done, total: told.append(done),
        say=said.append,
    )
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "out" / "index.html"
    assert "research use only" in text
    assert text.index("Phantom") < text.index("Real pairs: mist")
    assert "no data set" not in text + "".join(said)
    assert [line.split(":")[0] for line in said] == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]
    assert "staining and measuring 1 real pairs of mist" in said[2]
    assert told == sorted(told)
    assert told[-1] == 1000
    assert (tmp_path / "out" / "real-mist" / "images" / "S1_1.png").is_file()
    assert "S1_1.hematoxylin.jpg" in text
    assert (tmp_path / "out" / "real-mist" / "figures" / "S1_1.hematoxylin.jpg").is_file()
    assert not (tmp_path / "out" / "real-mist" / "images" / "S2_1.png").exists()

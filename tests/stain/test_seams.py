import numpy as np
import pytest

from restain.geometry import Region, Size
from restain.stain.seams import Seams, measure_seams


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.normal(150, 40, (height, width, 3))
    for axis in (0, 1):
        image = (image + np.roll(image, 1, axis) + np.roll(image, -1, axis)) / 3
    return image.astype(np.float32)


def measure(image: np.ndarray, block: int = 512, **options: object) -> Seams | None:
    size = Size(image.shape[1], image.shape[0])
    return measure_seams(lambda region: image[region.slices], size, block, lambda _: True, **options)


def test_an_image_in_one_piece_has_no_seams() -> None:
    seams = measure(texture(2048, 2048))
    assert seams is not None
    assert seams.stretches == 2 * 3 * 8
    assert seams.low < 1 < seams.high
    assert seams.ratio == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("step", [4, 12])
def test_blocks_of_another_colour_show(step: int) -> None:
    image = texture(2048, 2048)
    rows, columns = np.indices(image.shape[:2]) // 512
    seams = measure(image + step * ((rows + columns) % 2)[..., None])
    assert seams is not None
    assert seams.low > 1.02
    assert seams.at_random == pytest.approx(1, abs=0.02)


def test_where_pixels_fall_between_the_sources_is_not_taken_for_a_seam() -> None:
    """Linear interpolation by 15/16: every 16th pixel keeps its contrast, and so do all borders of blocks."""
    source = texture(2048, 2048)
    at = np.arange(1920) * 15 / 16
    low, part = at.astype(int), (at % 1).astype(np.float32)
    across = source[:, low] * (1 - part)[:, None] + source[:, low + 1] * part[:, None]
    both = across[low] * (1 - part)[:, None, None] + across[low + 1] * part[:, None, None]
    naive, told = measure(both), measure(both, scale=15 / 16)
    assert naive is not None
    assert told is not None
    assert abs(naive.ratio - 1) > 0.05
    assert told.ratio == pytest.approx(1, abs=0.03)


def test_only_what_is_shown_is_looked_at() -> None:
    image = texture(1024, 2048)
    size = Size(2048, 1024)

    def left(region: Region) -> bool:
        return region.right <= 1024

    seams = measure_seams(lambda region: image[region.slices], size, 512, left)
    assert seams is not None
    assert seams.stretches == 4 + 4
    assert measure_seams(lambda region: image[region.slices], size, 512, lambda _: False) is None
    assert measure(np.full((1024, 1024, 3), 240, np.uint8)) is None
    assert measure(texture(300, 300)) is None


def test_an_image_with_a_single_line_of_texture_has_a_finite_interval() -> None:
    image = np.full((1024, 2048, 3), 240, np.float32)
    image[:, 450:600] = texture(1024, 150)
    seams = measure(image)
    assert seams is None or np.isfinite([seams.ratio, seams.low, seams.high]).all()

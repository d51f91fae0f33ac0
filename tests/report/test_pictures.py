import numpy as np
import pytest

from restain.report import colour_map, colour_scale


@pytest.mark.parametrize("name", ["difference", "dab"])
def test_colour_scales_have_even_steps_of_lightness(name: str) -> None:
    from skimage.color import rgb2lab

    steps = np.diff(rgb2lab(colour_scale(name)[None])[0, :, 0])
    steps = steps if name == "difference" else -steps
    assert steps.mean() == pytest.approx(0.35, abs=0.03)
    assert (np.convolve(steps, np.ones(16) / 16, "valid") > 0.2).all()


def test_values_beyond_the_scale_take_its_end() -> None:
    shown = colour_map(np.array([[-1.0, 0.0, 1.0, 9.0]]), "dab", 1.0)
    assert np.array_equal(shown[0, 0], shown[0, 1])
    assert np.array_equal(shown[0, 2], shown[0, 3])

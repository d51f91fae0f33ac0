import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.color import hdx_from_rgb

from restain import optics

images = hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)))
densities = hnp.arrays(np.float32, (5, 4, 2), elements=st.floats(0, 1.5, width=32))


@given(images, st.floats(100, 255))
def test_transmit_inverts_optical_density(rgb: np.ndarray, white: float) -> None:
    back = optics.transmit(optics.optical_density(rgb, white), white)
    np.testing.assert_allclose(back, rgb.astype(float), atol=0.01)


@given(densities)
def test_unmix_inverts_mix(density: np.ndarray) -> None:
    stains = (optics.HEMATOXYLIN, optics.DAB)
    np.testing.assert_allclose(optics.unmix(optics.mix(density, stains), stains), density, atol=1e-4)


@given(st.floats(0, 2), st.floats(0, 2))
def test_more_stain_is_darker(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert (optics.transmit(optics.mix([low], [optics.DAB])) >= optics.transmit(optics.mix([high], [optics.DAB]))).all()


@given(densities)
def test_dab_and_hematoxylin_are_read_back_from_a_rendered_image(density: np.ndarray) -> None:
    rgb = np.round(optics.transmit(optics.mix(density * 0.5, (optics.HEMATOXYLIN, optics.DAB)))).astype(np.uint8)
    np.testing.assert_allclose(optics.dab_density(rgb), density[..., 1] * 0.5, atol=0.06)


def test_white_has_no_stain_and_its_colour_is_taken_into_account() -> None:
    tinted = np.full((8, 8, 3), (230, 226, 215), np.uint8)
    assert optics.dab_density(tinted).max() > 0.02
    assert optics.dab_density(tinted, white=(230, 226, 215)).max() == 0
    np.testing.assert_allclose(optics.glass_white(tinted), (230, 226, 215))


def test_stain_vectors_are_those_of_scikit_image() -> None:
    theirs = np.linalg.inv(hdx_from_rgb)
    np.testing.assert_allclose(optics.unit(theirs[0]), optics.unit(optics.HEMATOXYLIN), atol=1e-3)
    np.testing.assert_allclose(optics.unit(theirs[1]), optics.unit(optics.DAB), atol=1e-3)


def test_glass_is_found_beside_tissue() -> None:
    rgb = np.full((100, 100, 3), (180, 90, 150), np.uint8)
    rgb[:10, :10] = (241, 240, 238)
    np.testing.assert_allclose(optics.glass_white(rgb), (241, 240, 238))


def test_degenerate_stains_are_refused() -> None:
    with pytest.raises(ValueError, match="independent"):
        optics.unmix(np.zeros((1, 3)), (optics.DAB, optics.DAB))
    with pytest.raises(ValueError, match="zero"):
        optics.unit((0, 0, 0))

"""The examples in the docstrings of what users call."""

import doctest

import pytest

from restain.stain import inputs, model, options, provenance, result


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("module", [inputs, model, options, provenance, result], ids=lambda module: module.__name__)
def test_the_examples_are_true(module) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed

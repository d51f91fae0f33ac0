"""The scale that pictures state, against each other and against what they are read for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from restain.data.pairs import Pair
from restain.errors import RestainError
from restain.geometry import same_mpp
from restain.slides import open_slide


def stated_mpp(path: Path) -> float | None:
    """Micrometres per pixel that a picture states; None where it states none.

    Raises:
        RestainError: if the file cannot be read.
    """
    with open_slide(path, header_only=True) as slide:
        return slide.mpp if slide.has_mpp else None


def require_scale(pairs: Iterable[Pair], mpp: float, remedy: str) -> None:
    """See that no file states another scale than ``mpp``; files that state none pass.

    Args:
        pairs: headers of both files of each are read.
        mpp: micrometres per pixel that the pairs are read for.
        remedy: an option that takes the other value, for the sentence: ``--set mpp=``.

    Raises:
        RestainError: naming the first file that states another one, and both values.
    """
    for pair in pairs:
        for path in dict.fromkeys((pair.he_path, pair.ihc_path)):
            stated = stated_mpp(path)
            if stated is not None and not same_mpp(stated, mpp):
                raise RestainError(
                    f"{path} states {stated:.4g} µm per px, but {mpp:.4g} was expected; "
                    f"resample the images, or give {remedy}{stated:.4g}."
                )

"""Virtual staining against spatial transcriptomics: DAB density under each spot and the mRNA measured there."""

from restain.data.spots import read_spots
from restain.spots.evaluate import evaluate_spots

__all__ = ["evaluate_spots", "read_spots"]

"""Virtual staining against spatial transcriptomics: DAB density under each spot and the mRNA measured there."""

from restain.data.spots import Spots, read_spots
from restain.spots.evaluate import SpotsEvaluation, evaluate_spots

__all__ = ["Spots", "SpotsEvaluation", "evaluate_spots", "read_spots"]

"""Virtual staining against spatial transcriptomics: DAB density under each spot and the mRNA measured there."""

from restain.spots.evaluate import SpotsEvaluation, evaluate_spots
from restain.data.spots import Spots, read_spots

__all__ = ["Spots", "SpotsEvaluation", "evaluate_spots", "read_spots"]

"""From scanned slides to a data set: H&E and IHC slides are registered and cut into checked pairs.

``table`` says which slides, ``split`` who is for training, ``survey`` registers and measures one pair (``maps``, ``refine``,
``measure``), ``rules`` decide, ``cut`` writes, ``manifest`` and ``sheet`` say what became of it all; ``run`` is the job.
"""

from restain.dataset_builder.rules import DEFAULTS, RULES, parse_rules
from restain.dataset_builder.run import Built, Outcome, Settings, build_dataset
from restain.dataset_builder.split import split_patients
from restain.dataset_builder.survey import Grid
from restain.dataset_builder.table import SlidePair, read_table

__all__ = [
    "DEFAULTS",
    "RULES",
    "Built",
    "Grid",
    "Outcome",
    "Settings",
    "SlidePair",
    "build_dataset",
    "parse_rules",
    "read_table",
    "split_patients",
]

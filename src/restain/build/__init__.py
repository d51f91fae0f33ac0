"""From scanned slides to a data set: H&E and IHC slides are registered and cut into checked pairs.

``table`` says which slides, ``split`` who is for training, ``survey`` registers and measures one pair (``maps``, ``refine``,
``measure``), ``rules`` decide, ``cut`` writes, ``manifest`` and ``sheet`` say what became of it all; ``run`` is the job.
"""

from restain.build.rules import DEFAULTS, RULES, parse_rules
from restain.build.run import Built, Outcome, Settings, build_dataset
from restain.build.split import split_patients
from restain.build.survey import Grid
from restain.build.table import SlidePair, read_table

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

"""Data sets from scanned slides: H&E and IHC slides are registered and cut into checked pairs.

``table`` reads the slide pairs, ``split`` divides patients, ``windows`` registers and measures one pair (with ``masks``,
``refinement`` and ``quality``), ``rules`` decide, ``patches`` writes, ``manifest`` and ``contact_sheet`` report; ``builder`` is
the job.
"""

from restain.dataset_builder.builder import Built, Outcome, Settings, build_dataset
from restain.dataset_builder.rules import parse_rules
from restain.dataset_builder.split import split_patients
from restain.dataset_builder.table import SlidePair, read_table
from restain.dataset_builder.windows import Grid

__all__ = [
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

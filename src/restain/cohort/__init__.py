"""Many slides, few patients: HER2 per field, slide and patient, how uneven it is, and where to look.

HER2 varies within a tumour, and one IHC slide can miss it; virtual stains make it cheap to look at every block. What is
counted as tumour, and what a doubt does not cover, stands in :mod:`restain.cohort.field`.
"""

from restain.cohort.entropy import Heterogeneity, heterogeneity, quadratic_entropy
from restain.cohort.field import FieldReading, doubt, fields, margin, read_fields
from restain.cohort.page import cohort_page
from restain.cohort.patient import Change, PatientReading, SlideReading, what_would_change
from restain.cohort.run import run_cohort
from restain.cohort.table import Row, read_table

__all__ = [
    "Change",
    "FieldReading",
    "Heterogeneity",
    "PatientReading",
    "Row",
    "SlideReading",
    "cohort_page",
    "doubt",
    "fields",
    "heterogeneity",
    "margin",
    "quadratic_entropy",
    "read_fields",
    "read_table",
    "run_cohort",
    "what_would_change",
]

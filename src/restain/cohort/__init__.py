"""HER2 of many slides of few patients: per field, slide and patient, with its heterogeneity and the decisive fields.

HER2 varies within a tumour, and one IHC slide can miss it; virtual stains make every block affordable. What counts as
tumour, and what the sampling error does not cover: :mod:`restain.cohort.field`.
"""

from restain.cohort.analyse import run_cohort
from restain.cohort.field import FieldReading, fields, margin, read_fields, sampling_error
from restain.cohort.heterogeneity import Heterogeneity, heterogeneity, quadratic_entropy
from restain.cohort.page import cohort_page
from restain.cohort.patient import DecisiveFields, PatientReading, SlideReading, area_shares, decisive_fields
from restain.cohort.table import Row, read_table

__all__ = [
    "DecisiveFields",
    "FieldReading",
    "Heterogeneity",
    "PatientReading",
    "Row",
    "SlideReading",
    "area_shares",
    "cohort_page",
    "decisive_fields",
    "fields",
    "heterogeneity",
    "margin",
    "quadratic_entropy",
    "read_fields",
    "read_table",
    "run_cohort",
    "sampling_error",
]

"""HER2 of many slides of few patients: per field, slide and patient, with its heterogeneity and the decisive fields.

HER2 varies within a tumour, and one IHC slide can miss it; virtual stains make every block affordable. What counts as
tumour, and what the sampling error does not cover: :mod:`restain.cohort.field`.
"""

from restain.cohort.analyse import run_cohort as run_cohort

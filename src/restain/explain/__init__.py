"""What drives the reading: attribution, attention, and how far either can be believed.

``targets`` names the numbers that are explained, ``attribution`` and ``attention`` map them, ``tissue`` says what lies
where, ``image`` explains one picture, ``faithful`` and ``check`` measure the maps on the phantom, whose cause is known.
"""

from restain.explain.attention import AttentionMap, attention_of_point
from restain.explain.attribution import Attribution, integrated_gradients, occlusion
from restain.explain.check import CheckSummary, check_phantom
from restain.explain.image import Explanation, explain_image

__all__ = [
    "AttentionMap",
    "Attribution",
    "CheckSummary",
    "Explanation",
    "attention_of_point",
    "check_phantom",
    "explain_image",
    "integrated_gradients",
    "occlusion",
]

"""Synthetic paired tissue with known truth; never real tissue, and its HER2 rule is invented.

``cells`` states the rule. ``architecture`` and ``tissue`` grow compartments and cells, and ``render`` stains and
photographs them. ``pair`` makes one pair, ``from_he`` one on a real H&E image, ``dataset`` many. ``slide`` makes slides.
"""

from restain.phantom.dataset import PhantomSummary as PhantomSummary
from restain.phantom.dataset import write_phantom as write_phantom
from restain.phantom.deform import Deformation as Deformation
from restain.phantom.deform import Distortion as Distortion
from restain.phantom.noise import misalignment_field as misalignment_field
from restain.phantom.pair import PhantomPair as PhantomPair
from restain.phantom.pair import make_pair as make_pair
from restain.phantom.pair import pair_from_image as pair_from_image
from restain.phantom.slide import write_phantom_slide as write_phantom_slide
from restain.phantom.slide_plan import SlideTruth as SlideTruth
from restain.phantom.slide_plan import read_slide_truth as read_slide_truth
from restain.phantom.tissue import Tissue as Tissue
from restain.phantom.truth import read_record as read_record
from restain.phantom.truth import read_truth as read_truth
from restain.phantom.truth import regrow as regrow

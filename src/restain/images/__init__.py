"""Picture files: pixels, metadata and DAB density files. Any image is read by :mod:`restain.slides`."""

from restain.images.density import OD_PER_COUNT as OD_PER_COUNT
from restain.images.density import read_density as read_density
from restain.images.density import write_density as write_density
from restain.images.pictures import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from restain.images.pictures import TIFF_MAGIC as TIFF_MAGIC
from restain.images.pictures import Rgb as Rgb
from restain.images.pictures import check_mode as check_mode
from restain.images.pictures import decode_picture as decode_picture
from restain.images.pictures import file_head as file_head
from restain.images.pictures import no_image as no_image
from restain.images.pictures import picture_facts as picture_facts
from restain.images.pictures import picture_kind as picture_kind
from restain.images.pictures import read_text as read_text
from restain.images.pictures import tiff_form as tiff_form
from restain.images.pictures import write_png as write_png
from restain.images.pictures import write_rgb as write_rgb
from restain.images.scale import Scale as Scale
from restain.images.scale import ome_scale as ome_scale
from restain.images.scale import tiff_scale as tiff_scale

"""HTML reports: page frame and templates, marked pictures with fixed colour scales, and plots as SVG."""

from restain.report.page import environment as environment
from restain.report.page import relative_link as relative_link
from restain.report.page import render_page as render_page
from restain.report.page import write_page as write_page
from restain.report.pictures import burn_notice as burn_notice
from restain.report.pictures import colour_map as colour_map
from restain.report.pictures import colour_scale as colour_scale
from restain.report.pictures import css_gradient as css_gradient
from restain.report.pictures import save_picture as save_picture
from restain.report.pictures import save_pictures as save_pictures

"""HTML reports: page frame and templates, marked pictures with fixed colour scales, and plots as SVG."""

from restain.report.page import environment, relative_link, render_page, write_page
from restain.report.pictures import burn_notice, colour_map, colour_scale, css_gradient, save_picture, save_pictures

__all__ = [
    "burn_notice",
    "colour_map",
    "colour_scale",
    "css_gradient",
    "environment",
    "relative_link",
    "render_page",
    "save_picture",
    "save_pictures",
    "write_page",
]

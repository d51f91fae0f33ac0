"""Blinded reviews in the browser: pages, API, and tiles that do not reveal the modality."""

from restain.web.review.api import api_routes
from restain.web.review.manage import manage_routes
from restain.web.review.pages import page_routes
from restain.web.review.studies import Studies
from restain.web.review.tiles import StudyTiles

__all__ = ["Studies", "StudyTiles", "api_routes", "manage_routes", "page_routes"]

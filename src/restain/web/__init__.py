"""The server: a library of slides, a viewer, a staining page and blinded reviews in the browser. Needs the extra ``web``."""

from restain.errors import needs

with needs("web", "A server for browsers"):
    from restain.web.app import create_app
    from restain.web.library import Library
    from restain.web.links import Image, Related
    from restain.web.provenance import ImageKind
    from restain.web.serve import serve
    from restain.web.settings import Settings

__all__ = ["Image", "ImageKind", "Library", "Related", "Settings", "create_app", "serve"]

"""In the browser: the slides of a folder as a library, and a viewer that reads them as they are.

``serve`` starts it. ``library`` knows what lies in the folder and what belongs together, ``opened`` keeps slides open,
``grid`` and ``tiles`` cut them into tiles, ``security`` decides what is answered at all, ``texts`` holds every word.
The web libraries are the extra ``web``.
"""

from restain.errors import needs

with needs("web", "A server for browsers"):
    from restain.web.app import create_app
    from restain.web.library import Library
    from restain.web.links import Image, Related
    from restain.web.origin import Kind
    from restain.web.serve import serve
    from restain.web.settings import Settings

__all__ = ["Image", "Kind", "Library", "Related", "Settings", "create_app", "serve"]

"""The room of a blinded review: what a reader is shown, and how their answers come back.

``studies`` knows who reads what, ``pictures`` cuts the images into tiles that tell nothing of their files, ``api`` is what
the scripts ask for, ``pages`` what a browser shows.
"""

from restain.web.reading.pictures import Pictures
from restain.web.reading.routes import routes
from restain.web.reading.studies import Studies

__all__ = ["Pictures", "Studies", "routes"]

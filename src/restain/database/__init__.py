"""A database by its URL: SQLite in a file, or Postgres; the same promises from both.

``Database`` opens one and brings its tables to what this restain knows: the steps are Alembic's, in a folder ``migrations``
of each room that keeps something.
"""

from restain.database.engine import Database
from restain.database.faults import StoreFault

__all__ = ["Database", "StoreFault"]

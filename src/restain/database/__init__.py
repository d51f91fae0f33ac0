"""A database by its URL: SQLite in a file, or Postgres; the same promises from both.

``Database`` opens one, makes its tables, or brings older ones to what this restain knows: the steps are Alembic's, in a folder
``migrations`` of each package that keeps something.
"""

from restain.database.engine import Database, StoreFault

__all__ = ["Database", "StoreFault"]

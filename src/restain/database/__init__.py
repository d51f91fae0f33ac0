"""A database by its URL, SQLite in a file or Postgres, with the same guarantees from both.

``Database`` creates the tables, or upgrades them by the Alembic migrations in the folder ``migrations`` of each package.
"""

from restain.database.engine import Database, StoreFault

__all__ = ["Database", "StoreFault"]

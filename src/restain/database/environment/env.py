"""What Alembic runs for every step; the connection, in its transaction, comes from :mod:`restain.database.migrate`."""

from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"], version_table=given["version_table"])
context.run_migrations()

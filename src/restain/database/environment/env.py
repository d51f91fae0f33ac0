"""Run by Alembic for every migration, with the connection of :mod:`restain.database.migrate`."""

from alembic import context

attributes = context.config.attributes
context.configure(connection=attributes["connection"], version_table=attributes["version_table"])
context.run_migrations()

"""A store's tables: made as they are declared, or brought from an older revision by Alembic, without files that a user has to keep."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from restain.errors import RestainError


def migrate(connection: sql.Connection, tables: sql.MetaData, where: str) -> None:
    """Make ``tables``, or bring those that are there to the newest revision, all within the caller's transaction.

    Each package keeps its own revision, in the table ``PACKAGE_version``, so that packages can share a database.

    Raises:
        RestainError: if the database was written by a newer restain. Nothing is changed then.
    """
    package = tables.info["migrations"].removesuffix(".migrations")
    version_table = f"{package.rsplit('.', 1)[-1]}_version"
    config = Config()
    config.set_main_option("script_location", "restain.database:environment")
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", f"{package}:migrations")
    config.attributes |= {"connection": connection, "version_table": version_table}
    script = ScriptDirectory.from_config(config)
    context = MigrationContext.configure(connection, opts={"version_table": version_table})
    reached = context.get_current_revision()
    if reached is None:
        # A table of the same name is not ours: it is refused rather than used.
        tables.create_all(connection, checkfirst=False)
        context.stamp(script, "head")
    elif reached != script.get_current_head():
        try:
            command.upgrade(config, "head")
        except CommandError:
            raise RestainError(
                f"{where} was written by a newer restain (version {reached} of its tables is not known to this one)."
            ) from None

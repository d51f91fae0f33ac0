"""Tables of a database: created as declared, or upgraded from an older revision by Alembic."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from restain.errors import RestainError


def migrate(connection: sql.Connection, tables: sql.MetaData, where: str) -> None:
    """Create ``tables``, or upgrade existing ones to the newest revision, within the caller's transaction.

    Each package has its own revision, in the table ``PACKAGE_version``, so packages can share a database.

    Raises:
        RestainError: if a newer restain wrote the database, which is then left unchanged.
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
        # Fails on an existing table of the same name, which is not restain's.
        tables.create_all(connection, checkfirst=False)
        context.stamp(script, "head")
    elif reached != script.get_current_head():
        try:
            command.upgrade(config, "head")
        except CommandError:
            raise RestainError(
                f"{where} was written by a newer restain (version {reached} of its tables is not known to this one)."
            ) from None

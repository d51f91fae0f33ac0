"""The steps from an older database to this restain's tables, by Alembic, without files that a user has to keep."""

from __future__ import annotations

import sqlalchemy as sql
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from restain.errors import RestainError


def migrate(connection: sql.Connection, migrations: str, where: str) -> None:
    """Bring the tables to the newest version of the package ``migrations``, all within the caller's transaction.

    Each room counts its own versions, in the table ``ROOM_version``, so that rooms can share a database.

    Raises:
        RestainError: if the database was written by a newer restain. Nothing is changed then.
    """
    package, room = migrations.rsplit(".", 1)[0], migrations.split(".")[-2]
    config = Config()
    config.set_main_option("script_location", "restain.database:environment")
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", f"{package}:migrations")
    config.attributes |= {"connection": connection, "version_table": f"{room}_version"}
    script = ScriptDirectory.from_config(config)
    reached = MigrationContext.configure(connection, opts={"version_table": f"{room}_version"}).get_current_heads()
    for version in reached:
        try:
            script.get_revision(version)
        except CommandError:
            raise RestainError(
                f"{where} was written by a newer restain (version {version} of its tables is not known to this one)."
            ) from None
    if tuple(script.get_heads()) != reached:
        command.upgrade(config, "head")

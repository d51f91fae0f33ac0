"""The first tables. New databases get those of :mod:`restain.web.database` and start at the newest revision, so no step creates them."""

revision, down_revision = "0001", None


def upgrade() -> None:
    """Nothing to do; the next revision follows this one."""

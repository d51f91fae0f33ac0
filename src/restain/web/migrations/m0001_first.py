"""The first tables. A new store gets those of :mod:`restain.web.tables` and starts at the newest revision: no step makes them."""

revision, down_revision = "0001", None


def upgrade() -> None:
    """Does nothing; the next revision follows this one."""

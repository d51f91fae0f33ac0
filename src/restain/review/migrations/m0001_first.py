"""The first schema. New databases get the tables of :mod:`restain.review.tables` and start at the newest revision."""

revision, down_revision = "0001", None


def upgrade() -> None:
    """Nothing to do; later revisions follow this one."""

"""What the server remembers: annotations. SQLite in the state folder; SQLAlchemy, so that another database can follow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from restain.errors import RestainError
from restain.web.faults import Fault

_tables = sql.MetaData()
_annotations = sql.Table(
    "annotations",
    _tables,
    sql.Column("image", sql.String(64), primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("changed", sql.String(32), nullable=False),
    sql.Column("features", sql.Text, nullable=False),
)


@dataclass(frozen=True)
class Annotations:
    """The annotations of an image: GeoJSON features in px of level 0, and how often they were saved."""

    version: int
    features: list[dict[str, Any]]

    def geojson(self) -> dict[str, Any]:
        return {"type": "FeatureCollection", "features": self.features}


class Store:
    """Annotations by image. A save is on disk when it returns, and names the version that it replaces."""

    def __init__(self, state: Path) -> None:
        self.path = state / "restain.sqlite"
        self._engine = sql.create_engine(f"sqlite:///{self.path}", connect_args={"timeout": 10})
        try:
            _tables.create_all(self._engine)
        except sql.exc.SQLAlchemyError as fault:
            raise RestainError(f"{self.path} cannot be used as the server's store ({type(fault).__name__}).") from None

    def annotations(self, image: str) -> Annotations:
        with self._engine.connect() as connection:
            row = connection.execute(sql.select(_annotations).where(_annotations.c.image == image)).first()
        return Annotations(0, []) if row is None else Annotations(row.version, json.loads(row.features))

    def save(self, image: str, name: str, features: list[dict[str, Any]], version: int) -> Annotations:
        """Replace the annotations of which the caller saw ``version``.

        Raises:
            Fault: 409, if they were changed since.
        """
        values = {
            "name": name,
            "version": version + 1,
            "changed": datetime.now(UTC).isoformat(timespec="seconds"),
            "features": json.dumps(features),
        }
        here = _annotations.c.image == image
        try:
            with self._engine.begin() as connection:
                if version == 0:
                    connection.execute(_annotations.insert().values(image=image, **values))
                else:
                    seen = here & (_annotations.c.version == version)
                    if connection.execute(_annotations.update().where(seen).values(**values)).rowcount != 1:
                        raise Fault(409, "fault.changed")
        except sql.exc.IntegrityError:
            raise Fault(409, "fault.changed") from None
        return Annotations(version + 1, features)

    def close(self) -> None:
        self._engine.dispose()

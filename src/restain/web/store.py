"""What the server remembers of its own: annotations here; accounts and the queue of stainings use the same database."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from restain.database import Database
from restain.web.faults import Fault
from restain.web.tables import ANNOTATIONS, TABLES

FILE = "restain.sqlite"


@dataclass(frozen=True)
class Annotations:
    """The annotations of an image: GeoJSON features in px of level 0, and how often they were saved."""

    version: int
    features: list[dict[str, Any]]

    def geojson(self) -> dict[str, Any]:
        return {"type": "FeatureCollection", "features": self.features}


class Store:
    """Annotations by image. A save is on disk when it returns, and names the version that it replaces.

    ``database`` is a SQLite file in ``state``, or what ``url`` names; accounts and jobs are in it too.

    Raises:
        RestainError: if it cannot be opened, or was written by a newer restain.
    """

    def __init__(self, state: Path, url: str | None = None) -> None:
        self.database = Database(state / FILE if url is None else url, TABLES)

    def annotations(self, image: str) -> Annotations:
        with self.database.read() as connection:
            row = connection.execute(sql.select(ANNOTATIONS).where(ANNOTATIONS.c.image == image)).first()
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
        here = ANNOTATIONS.c.image == image
        try:
            with self.database.write() as connection:
                if version == 0:
                    connection.execute(ANNOTATIONS.insert().values(image=image, **values))
                else:
                    seen = here & (ANNOTATIONS.c.version == version)
                    if connection.execute(ANNOTATIONS.update().where(seen).values(**values)).rowcount != 1:
                        raise Fault(409, "fault.changed")
        except sql.exc.IntegrityError:
            raise Fault(409, "fault.changed") from None
        return Annotations(version + 1, features)

    def close(self) -> None:
        self.database.close()

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")

from restain.errors import RestainError
from restain.images import write_png
from restain.review import create_study, parse_definition
from restain.web.accounts.account import Account, Role
from restain.web.review.studies import Studies


def test_a_study_in_a_database_is_open_to_its_readers(url: str, tmp_path: Path):
    write_png(tmp_path / "a.png", np.full((40, 50, 3), 200, np.uint8), {}, mpp=0.5)
    image = {"path": tmp_path / "a.png", "case": "c1", "modality": "virtual"}
    asked = {"title": "T", "images": [image], "questions": ["her2"], "readers": ["anna"]}
    create_study(parse_definition(asked, "test"), tmp_path / "trial", url).close()
    studies = Studies([url])
    try:
        (one,) = studies.read_by(Account("anna", Role.READER))
        assert studies.read_by(Account("bo", Role.READER)) == []
        study, reader = studies.get(one.id, Account("anna", Role.READER))
        item = study.study.next_item(reader)
        assert item is not None
        study.study.record(reader, item.token, "her2", "2+")
        assert one.options[:2] == [".", "--store"]
        assert "://" in one.options[2]
    finally:
        studies.close()
    with pytest.raises(RestainError, match="hold the same study"):
        Studies([url, url])

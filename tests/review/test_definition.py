from __future__ import annotations

import pytest

from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.review import Kind, Modality, StudyDefinition, parse_definition, read_definition

IMAGE = {"path": "a.png", "case": "P1", "modality": "chemical", "level": "2+"}
WHOLE = {"title": "T", "images": [IMAGE], "questions": ["her2"], "readers": ["anna"]}


def test_a_study_is_read_from_yaml_with_its_images_beside_it(study_file):
    study = read_definition(study_file(cases=2, repeats=["virtual-1.png"], washout_days=7, margin=0.2, positive="2+"))
    assert [image.path.name for image in study.images] == [
        "chemical-0.png",
        "virtual-0.png",
        "chemical-1.png",
        "virtual-1.png",
    ]
    assert all(image.path.is_absolute() for image in study.images)
    assert study.repeats == (study.images[3].path,)
    assert study.levels == {"P0": Her2Level.ZERO, "P1": Her2Level.ONE}
    assert study.images[1].modality is Modality.VIRTUAL
    assert [question.name for question in study.questions] == ["her2", "modality", "quality", "remarks"]
    assert study.named(Kind.TEXT) == "remarks"


def test_an_image_of_several_in_a_file_is_named_by_its_number(study_file):
    path = study_file(cases=1)
    text = path.read_text()
    path.write_text(text.replace("virtual-0.png", "virtual-0.png#1"))
    assert [image.path.name for image in read_definition(path).images] == ["chemical-0.png", "virtual-0.png#1"]
    path.write_text(text.replace("virtual-0.png", "none.png#1"))
    with pytest.raises(RestainError, match=r"none\.png#1 does not exist"):
        read_definition(path)


def test_a_study_survives_the_way_through_json(study_file):
    study = read_definition(study_file(repeats=0.5))
    assert StudyDefinition.model_validate_json(study.model_dump_json()) == study


def test_numbers_are_names_and_levels_too():
    study = parse_definition(WHOLE | {"images": [IMAGE | {"case": 17, "level": 0}], "readers": [3]}, "s")
    assert (study.images[0].case, study.images[0].level, study.readers) == ("17", Her2Level.ZERO, ("3",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"margins": 1}, "s: margins: Extra inputs are not permitted."),
        ({"title": None}, "title"),
        ({"readers": []}, "readers"),
        ({"readers": ["anna", "Anna"]}, "reader 'anna' is given 2 times"),
        ({"readers": ["truth"]}, "iMRMC reserves it"),
        ({"readers": ["-1"]}, "'-1' is not a valid name"),
        ({"readers": ["a,b"]}, "'a,b' is not a valid name"),
        ({"readers": ["<script>"]}, "is not a valid name"),
        ({"questions": ["her3"]}, "questions"),
        ({"questions": ["her2", "her2"]}, "'her2' is given 2 times"),
        ({"questions": ["her2", {"kind": "her2", "name": "again"}]}, "kind of question 'her2'"),
        ({"questions": ["text"]}, "of another kind than text"),
        ({"images": [IMAGE, IMAGE | {"path": "b.png"}]}, "case 'P1' has two chemical images"),
        ({"images": [IMAGE, IMAGE | {"modality": "virtual"}]}, "path 'a.png' is given 2 times"),
        (
            {"images": [IMAGE, {"path": "b", "case": "P1", "modality": "virtual", "level": "3+"}]},
            "two different levels",
        ),
        ({"images": [IMAGE | {"level": "4+"}]}, "'4+' is not a HER2 level"),
        ({"images": [IMAGE | {"modality": "painted"}]}, "images.0.modality"),
        ({"repeats": ["c.png"]}, "'c.png' is not one of the images"),
        ({"repeats": 1.5}, "repeats"),
        ({"margin": 0}, "margin"),
        ({"washout_days": -1}, "washout_days"),
    ],
)
def test_faults_are_told_in_one_sentence(change, words):
    with pytest.raises(RestainError) as fault:
        parse_definition(WHOLE | change, "s")
    assert words in str(fault.value)
    assert str(fault.value).startswith("s: ")
    assert "\n" not in str(fault.value)
    assert ".." not in str(fault.value)


def test_files_that_are_no_study_are_told(tmp_path, study_file):
    path = tmp_path / "s.yaml"
    for text, words in (("a: [", "not valid YAML"), ("- a", "a mapping"), ("", "title: Field required")):
        path.write_text(text)
        with pytest.raises(RestainError, match=words):
            read_definition(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RestainError, match="not a text file"):
        read_definition(path)
    with pytest.raises(RestainError, match="cannot be read"):
        read_definition(tmp_path / "none.yaml")
    whole = study_file()
    (whole.parent / "virtual-2.png").unlink()
    with pytest.raises(RestainError, match=r"image virtual-2.png does not exist\."):
        read_definition(whole)


def test_answers_are_checked():
    her2, text = parse_definition(WHOLE | {"questions": ["her2", "text"]}, "s").questions
    assert her2.check("2+") == "2+"
    assert text.check("<b> 好") == "<b> 好"
    with pytest.raises(RestainError, match="'2' is no answer to 'her2'"):
        her2.check("2")
    with pytest.raises(RestainError, match="4000"):
        text.check("x" * 4001)

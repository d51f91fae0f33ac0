"""Every word stands in the catalogue, in both languages."""

import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

from restain.web.texts import LANGUAGES, catalogue, preferred_language

WEB = Path(str(resources.files("restain.web")))
TEMPLATES = sorted((WEB / "templates").rglob("*.j2"))
SCRIPTS = sorted((WEB / "static").glob("*.js"))
SHOWN = {"title", "alt", "aria-label", "placeholder", "aria-description", "aria-roledescription"}
# Names of keys on a keyboard, as they are printed there.
KEYS = {"Enter", "Esc", "Delete", *"OSHCBNDTUMAKPRGEL"}


class Words(HTMLParser):
    """Text and shown attributes of a page, without scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside.append(tag)
        self.found += [value for name, value in attrs if name in SHOWN and value]

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" not in self._inside:
            self.found.append(data)


def words_of(template: str) -> list[str]:
    parser = Words()
    template = re.sub(r"\{% block body_class %\}\w+\{% endblock %\}", " ", template)
    parser.feed(re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", " ", template, flags=re.DOTALL))
    found = [word for text in parser.found for word in re.findall(r"[^\W\d_]+", text)]
    return [word for word in found if word not in KEYS]


def sentences_of(script: str) -> list[str]:
    """String literals that look like words for people: two words with a space, or any that is not ASCII."""
    code = re.sub(r"^\s*//.*$", "", script, flags=re.MULTILINE)
    literals = [one for found in re.findall(r'"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`', code) for one in found if one]
    literals = [re.sub(r"\$\{[^}]*\}+", " ", one) for one in literals]
    return [one for one in literals if re.search(r"[A-Za-z]{2,} +[A-Za-z]{2,}|[A-Z][a-z]+$|[^\x00-\xb7]", one)]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_holds_words(template: Path):
    assert words_of(template.read_text(encoding="utf-8")) == []


# What looks like a word and is none: keys of the keyboard, types of GeoJSON, class lists, selectors.
NAMES = {
    *("Point", "Polygon", "MultiPoint", "LineString", "MultiLineString", "Feature", "FeatureCollection", "Enter"),
    *("Home", "End", "Escape", "Delete", "Backspace", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"),
    *("strip virtual", "Content-Type", "Tumor", "Stroma", "Immune cells", "Necrosis", "Other"),
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_holds_words(script: Path):
    assert [one for one in sentences_of(script.read_text(encoding="utf-8")) if one.strip() not in NAMES] == []


def test_the_search_for_words_finds_some():
    assert words_of('<p title="hello">{{ t("x") }} World</p><script>var x</script>') == ["hello", "World"]
    assert sentences_of('say("Not saved yet"); say(`虚拟`); at("first"); say("Saved")') == [
        "Not saved yet",
        "虚拟",
        "Saved",
    ]


def test_every_text_is_there_in_every_language_with_the_same_places():
    for key, entry in catalogue().items():
        assert set(entry) == set(LANGUAGES), key
        assert all(text.strip() for text in entry.values()), key
        assert len({frozenset(re.findall(r"\{(\w*)\}", text)) for text in entry.values()}) == 1, key


def test_every_text_that_is_asked_for_is_there_and_none_is_spare():
    code = "\n".join(path.read_text(encoding="utf-8") for path in [*TEMPLATES, *SCRIPTS, *WEB.rglob("*.py")])
    known = set(catalogue())
    families = "|".join(sorted({key.split(".")[0] for key in known if "." in key}))
    asked = set(re.findall(rf"[\"'`]((?:{families})\.[a-z_.]+[a-z_])[\"'`]", code)) - {"viewer.js"}
    assert asked <= known
    built = {
        key
        for key in known
        if re.match(
            r"kind\.|library\.sort\.|study\.(ask|side|few|figure|inferior)\.|stain\.(state|phase|figure|file)\.|stain\.(left|top|width|height)$|viewer\.mode\.|viewer\.(point|line|rectangle|polygon|rotation|brightness|contrast)$",
            key,
        )
    }
    plain = {key for key in known if "." not in key}
    assert known - asked - built - plain == set()


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("de-DE,en;q=0.7,zh;q=0.3", "en"),
        ("zh-TW", "zh"),
        ("en;q=0, zh;q=0.1", "zh"),
        ("", "en"),
        ("fr", "en"),
        ("zh;q=x,*;;;=", "en"),
    ],
)
def test_the_browsers_language_is_spoken(header: str, language: str):
    assert preferred_language(header) == language


def test_the_switch_is_stronger_than_the_browser_and_is_remembered(server):
    import httpx

    with httpx.Client(base_url=server.url, headers={"Accept-Language": "en"}) as browser:
        assert 'lang="en"' in browser.get("/").text
        assert "切片" in browser.get("/?lang=zh").text
        assert 'lang="zh-Hans"' in browser.get("/").text
        assert "找不到此图像" in browser.get("/view/nothing").text
        assert "找不到此图像" in browser.get("/api/images/nothing/outlines/x/tissue").json()["error"]
        assert 'lang="zh-Hans"' in browser.get("/?lang=xx").text

"""The documentation is plain: short sentences, lines that fit a terminal."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MOST_WORDS, MOST_CHARACTERS = 30, 120
"""Of a sentence and of a line."""

PROJECT = ("README", "CONTRIBUTING", "SECURITY", "CODE_OF_CONDUCT")
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (*(ROOT / f"{name}.md" for name in PROJECT), *sorted((ROOT / "docs").rglob("*.md")))
}

GENERATED = ("reference/commands.md", "reference/recipe.md")
"""Pages that ``tools/site_pages.py`` makes; ``make docs`` checks all links once more."""

ABBREVIATIONS = ("al", "approx", "cf", "e.g", "etc", "Fig", "i.e", "No", "resp", "St", "vol", "vs")
"""Words whose full stop ends no sentence."""

BEFORE = "".join(rf"(?<!\b{re.escape(word)}\.)" for word in ABBREVIATIONS)
SENTENCE_START = r"(?=\[|[\"'(*_]*(?:[A-Z0-9`Δκ▲▼±]|restain\b))"
SENTENCE_END = re.compile(rf"(?<=[.!?]){BEFORE}[\"')\]*_]*\s+{SENTENCE_START}")


def prose(text: str) -> str:
    """Everything but code blocks, tables, headings and comments; a link becomes its text."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^(\s*\||#).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(r"<?https?://[^\s)>]+>?", "URL", text)


def sentences(text: str) -> Iterator[str]:
    """The sentences of paragraphs and list items; code in a sentence counts as one word."""
    text = re.sub(r"`[^`]+`", "`CODE`", prose(text))
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)", text):
        paragraph = re.sub(r"^\s*(?:[-*]|\d+\.)\s+", "", paragraph)
        yield from (" ".join(one.split()) for one in SENTENCE_END.split(paragraph) if one.strip())


def words(sentence: str) -> int:
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


@pytest.mark.parametrize("name", list(PAGES))
def test_sentences_are_short(name: str) -> None:
    text = PAGES[name].read_text(encoding="utf-8")
    assert [(words(one), one) for one in sentences(text) if words(one) > MOST_WORDS] == []


@pytest.mark.parametrize("name", list(PAGES))
def test_lines_are_short(name: str) -> None:
    lines = prose(PAGES[name].read_text(encoding="utf-8")).splitlines()
    assert [line for line in lines if len(line) > MOST_CHARACTERS] == []


@pytest.mark.parametrize("name", list(PAGES))
def test_no_sentence_begins_with_of(name: str) -> None:
    text = PAGES[name].read_text(encoding="utf-8")
    assert [one for one in sentences(text) if one.lstrip("*_([").startswith("Of ")] == []


def test_every_linked_file_exists() -> None:
    for path in PAGES.values():
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists() or link.endswith(GENERATED), f"{path.name}: {link}"


def test_sentences_are_split_at_their_ends_only() -> None:
    text = """# A heading. Not counted

Two lines
of one sentence, e.g. This. It has 3.5 dB (Rao et al. 1982). **Bold ends.** `code` begins one.

- An item without a stop
- Another; see [a page](docs/long/path.md). Last.

| a | table. Not counted |

```
code. Not counted
```
"""
    assert list(sentences(text)) == [
        "Two lines of one sentence, e.g. This.",
        "It has 3.5 dB (Rao et al. 1982).",
        "**Bold ends.",
        "`CODE` begins one.",
        "An item without a stop",
        "Another; see [a page].",
        "Last.",
    ]

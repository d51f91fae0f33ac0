"""The Chinese README says what the English one says, as far as that can be seen without reading Chinese."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))


def blocks(text: str) -> list[str]:
    return re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    return re.sub(r"^```\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def test_the_commands_are_the_same_in_the_same_order():
    assert blocks(ENGLISH)
    assert blocks(CHINESE) == blocks(ENGLISH)


def test_the_sections_and_tables_are_the_same():
    def shape(text: str) -> list[int]:
        return [len(mark) for mark in re.findall(r"^(#+) ", text, re.MULTILINE)]

    assert shape(CHINESE) == shape(ENGLISH)
    rows = [re.findall(r"-?\d+\.\d+", row) for row in re.findall(r"^\|.*\|$", ENGLISH, re.MULTILINE)]
    assert [re.findall(r"-?\d+\.\d+", row) for row in re.findall(r"^\|.*\|$", CHINESE, re.MULTILINE)] == rows


def test_the_same_pages_options_and_packages_are_named():
    def links(text: str) -> set[str]:
        return set(re.findall(r"\]\(([^)]+)\)", text)) - {"README.md", "README.zh.md"}

    def code(text: str) -> set[str]:
        return set(re.findall(r"`([^`\n]+)`", prose(text)))

    assert links(CHINESE) == links(ENGLISH)
    assert code(ENGLISH) <= code(CHINESE)


def test_every_linked_page_is_there():
    for text in (ENGLISH, CHINESE):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (ROOT / link).exists(), link

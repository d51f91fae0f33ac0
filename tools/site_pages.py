"""Pages of the documentation site that are generated when it is built; a hook of MkDocs (``mkdocs.yml``).

The reference of the command line comes from the typer application, that of recipes from ``restain/recipe.py``, the model
cards from every ``card.json``, and the pages of results from the sections of ``docs/results.md``.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
RESULTS = "results.md"
MODELS = "models"

KINDS = {
    "PositiveInt": "whole number above 0",
    "PositiveFloat": "number above 0",
    "NonNegativeFloat": "number, 0 or more",
    "Share": "share, 0 to 1",
    "Beta": "number, 0 to below 1",
    "Objective": "cross-entropy, least-squares or wasserstein",
    "bool": "yes or no",
    "str": "text",
}
"""Types of the recipe in words."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation, and leave pages out that do not exist."""
    config.nav = list(_present(config.nav or []))
    return config


def _present(entries: list[Any]) -> Iterator[Any]:
    for entry in entries:
        title, target = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(target, list):
            yield {title: list(_present(target))}
        elif target == RESULTS:
            yield entry
            yield from (f"results/{slug}.md" for slug, _, _ in _sections())
        elif target == f"{MODELS}/":
            yield from (f"{MODELS}/{name}.md" for name in sorted(_cards()))
        elif target in GENERATED or (DOCS / target).exists():
            yield entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {name: make() for name, make in GENERATED.items()}
    pages |= {f"results/{slug}.md": f"# {title}\n\n{text}" for slug, title, text in _sections()}
    pages |= {f"{MODELS}/{name}.md": _model_page(name, card) for name, card in _cards().items()}
    for name, text in pages.items():
        if (before := files.get_file_from_path(name)) is not None:
            files.remove(before)
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Cut ``results.md`` to its introduction and the list of its sections, which have pages of their own."""
    if page.file.src_uri != RESULTS:
        return markdown
    entries = "\n".join(f"- [{title}](results/{slug}.md)" for slug, title, _ in _sections())
    return f"{markdown.split(chr(10) + '## ', 1)[0]}\n\n{entries}\n"


def _sections() -> list[tuple[str, str, str]]:
    """Name of the page, title and text of each section of ``docs/results.md``."""
    found = []
    for part in re.split(r"^## ", (DOCS / RESULTS).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        text = re.sub(r"\]\((?!https?:|#|/)", "](../", text)
        found.append((slug, title, re.sub(r"^###", "##", text, flags=re.MULTILINE)))
    return found


def _commands() -> str:
    """The reference of all commands, as typer writes it."""
    sys.path.insert(0, str(ROOT / "src"))
    import typer
    from typer.cli import get_docs_for_click

    from restain.cli import app

    group = typer.main.get_command(app)
    text = get_docs_for_click(obj=group, ctx=typer.Context(group, info_name="restain"), name="restain")
    text = text.replace("# `restain`", "# Command line", 1).replace("[bold]", "**").replace("[/bold]", "**")
    overview = ["| command | effect |", "|---|---|"]
    overview += [
        f"| [`{name}`](#restain-{name}) | {one.help.splitlines()[0]} |" for name, one in group.commands.items()
    ]
    # In place of typer's list, which cuts the sentences.
    return re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+", lambda _: "\n".join(overview) + "\n", text, count=1)


def _recipes() -> str:
    """The reference of recipe keys, from the classes of ``recipe.py`` with the texts under their fields."""
    tree = ast.parse((ROOT / "src/restain/recipe.py").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    lines = [
        "# Recipe keys",
        "",
        "A recipe is a YAML file with all settings of a training. `--set KEY=VALUE` changes one key, for example "
        "`--set train.steps=100`. A recipe with `extends: other.yaml` takes over the keys that it does not state.",
        "",
        *_keys("", classes["Recipe"], classes),
        "## Shipped recipes",
        "",
        "| name | what it is for |",
        "|---|---|",
    ]
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        comment = re.match(r"(?:#.*\n)*", path.read_text(encoding="utf-8"))
        words = " ".join(re.findall(r"^# ?(\S.*)", comment.group() if comment else "", re.MULTILINE))
        name = path.relative_to(ROOT / "recipes").with_suffix("").as_posix()
        lines.append(f"| `{name}` | {re.split(r'(?<=[.])(?<!al[.]) ', words)[0]} |")
    return "\n".join(lines) + "\n"


def _keys(prefix: str, owner: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    """A heading and a table for one class of keys, then those of the classes that it holds."""
    about = ast.get_docstring(owner) or ""
    kind = next(
        (one for one in owner.body if isinstance(one, ast.AnnAssign) and ast.unparse(one.target) == "kind"), None
    )
    title = f"`{prefix}`" if prefix else "Top level"
    if kind is not None and prefix == "peer":
        title += (
            f", kind `{ast.literal_eval(kind.annotation.slice)}`" if isinstance(kind.annotation, ast.Subscript) else ""
        )
    yield from (f"## {title}", "", *([about, ""] if about else []))
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    parts: list[tuple[str, str]] = []
    for field, after in zip(owner.body, [*owner.body[1:], None], strict=True):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        key, kind = f"{prefix}.{field.target.id}".lstrip("."), ast.unparse(field.annotation)
        inner = next((name for name in classes if re.match(rf"{name}\b", kind)), None)
        if inner is not None:
            parts.append((key, inner))
        if kind.startswith("Peer"):
            parts += [(key, name) for name in ("Pix2PixRecipe", "CycleGanRecipe", "AspRecipe", "BridgeRecipe")]
        value = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
        meaning = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(str(value or "").split())).replace("``", "`")
        default = "" if field.value is None or inner else f"`{ast.unparse(field.value)}`"
        yield f"| `{key}` | {_kind(kind, inner)} | {default} | {meaning} |".replace(" |  |", " | |")
    yield ""
    for key, name in parts:
        yield from _keys(key, classes[name], classes)


def _kind(annotation: str, inner: str | None) -> str:
    if inner is not None or annotation.startswith("Peer"):
        return "keys below" + (", or null" if "None" in annotation else "")
    if choices := re.match(r"Literal\[(.*)\]", annotation):
        return ", ".join(f"`{choice}`" for choice in re.findall(r"'([^']+)'", choices.group(1)))
    if bounds := re.match(r"Annotated\[(\w+), Field\((.*)\)\]", annotation):
        limits = bounds.group(2).replace("ge=", "≥ ").replace("le=", "≤ ").replace("lt=", "< ")
        return f"{'whole number' if bounds.group(1) == 'int' else 'number'} {limits}"
    for name, words in KINDS.items():
        annotation = re.sub(rf"\b{name}\b", words, annotation)
    annotation = annotation.replace(" | None", ", or null")
    annotation = annotation.replace("tuple[tuple[text, ...], ...]", "list of lists of text").replace(", ...]", "]")
    return re.sub(r"tuple\[(.*?)\]", lambda found: "list: " + found.group(1), annotation)


def _cards() -> dict[str, dict[str, Any]]:
    """Every model card of the repository by its name: of bundles and of the HER2 classifier."""
    paths = [*(ROOT / "src/restain").rglob("card.json"), *(ROOT / "bundles").rglob("card.json")]
    cards = {}
    for path in paths:
        name = "her2-classifier" if "her2" in path.parent.name else path.parent.name.removesuffix("_bundle")
        cards[name] = json.loads(path.read_text(encoding="utf-8"))
    return cards


def _model_page(name: str, card: dict[str, Any]) -> str:
    """The hand-written part of a model card where there is one, and all that its ``card.json`` states."""
    written = DOCS / MODELS / f"{name}.md"
    text = (
        written.read_text(encoding="utf-8") if written.is_file() else (DOCS / MODELS / "_other.md").read_text("utf-8")
    )
    rows = {key: value for key, value in card.items() if not isinstance(value, dict | list)}
    lines = [text.replace("NAME", name).rstrip(), "", "## From the card", "", "| field | value |", "|---|---|"]
    lines += [f"| `{key}` | {value} |" for key, value in rows.items() if value not in ("", None)]
    if figures := card.get("figures"):
        lines += ["", "Figures that training measured on its validation split:", "", "| figure | value |", "|---|---|"]
        lines += [f"| `{key}` | {'–' if value is None else format(value, '.4g')} |" for key, value in figures.items()]
    if recipe := card.get("recipe"):
        block = json.dumps(recipe, indent=2, ensure_ascii=False)
        lines += [
            "",
            '??? note "The recipe of the training"',
            "    ```json",
            *(f"    {line}" for line in block.splitlines()),
        ]
        lines.append("    ```")
    return "\n".join(lines) + "\n"


GENERATED = {"reference/commands.md": _commands, "reference/recipe.md": _recipes}
"""Pages of the reference and what makes each."""

"""Makes the pages below reference/ from the code when the site is built: settings, docstrings, commands, file formats, cards."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # page -> the roles it shows
    "erase": ("erase",), "train": ("train/retain", "train/rules", "train/parameters", "train/samplers"), "guard": ("guard",),
    "select": ("select",), "adapt": ("adapt",), "audit": ("audit",), "data": ("data",), "subjects": ("subjects",),
}  # fmt: skip
TITLES = {
    "erase": "Methods that erase", "train": "Axes of training", "guard": "Guards", "select": "Coresets", "adapt": "Adapters",
    "audit": "Audits", "data": "Data sources", "subjects": "Subjects",
}  # fmt: skip


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    for name, text in sorted(pages().items()):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def pages() -> dict[str, str]:
    """Every generated page by its name below reference/."""
    made = {page: "\n".join(plugins(page, *roles)) for page, roles in PAGES.items()}
    cards = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "cards").glob("*.md"))}
    made["cards"] = "\n".join(card_list(cards))
    made |= {f"cards/{name}": card(text) for name, text in cards.items()}
    return made | {"commands": "\n".join(commands()), "formats": "\n".join(formats())}


def cell(text: Any) -> str:
    """Text for one cell of a table."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").replace("<", "&lt;").strip()


def table(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Iterator[str]:
    """A Markdown table, and nothing where there are no rows; a last column that is always empty is left out."""
    if rows and not any(str(row[-1]).strip() for row in rows):
        names, rows = names[:-1], [row[:-1] for row in rows]
    if rows:
        yield from ("", f"| {' | '.join(names)} |", f"|{'---|' * len(names)}")
        yield from (f"| {' | '.join(cell(part) for part in row)} |" for row in rows)
        yield ""


def prose(docstring: str) -> Iterator[str]:
    """A docstring: prose as prose, indented lines (formulas, tables) as they stand."""
    block: list[str] = []
    for line in [*docstring.splitlines(), ""]:
        if line.startswith(" ") or (not line and block):
            block.append(line)
            continue
        if block:
            yield from ("```text", *textwrap.dedent("\n".join(block)).strip("\n").splitlines(), "```", "")
            block = []
        yield cell(line).replace("\\|", "|").replace("[", "\\[").replace("*", "\\*")
    if block and any(block):
        yield from ("```text", *textwrap.dedent("\n".join(block)).strip("\n").splitlines(), "```")
    yield ""


def plugins(page: str, *roles: str) -> Iterator[str]:
    """All plug-ins of some roles: docstring, link to the cards, and settings; those of all at the end."""
    from letheon.core import registry
    from letheon.core.fields import fields as settings_of
    from letheon.core.fields import text as written

    commands = ", ".join(f"`letheon methods {role}`" for role in roles)
    yield from (f"# {TITLES[page]}", "", f"Made from the code. {commands} lists names, `letheon show NAME` prints one.", "")
    for plugin in (one for role in roles for one in registry.plugins(role).values()):
        settings = registry.load(plugin.name, plugin.role).Settings
        yield from (f"## {plugin.name}", "", f"{registry.ROLES[plugin.role].capitalize()}.", "", *prose(plugin.docstring))
        names = [name for found in re.findall(r"[Cc]ards?: ([a-z0-9, -]+)\.", plugin.docstring) for name in found.split(", ")]
        links = [f"[{name}](cards/{name}.md)" for name in names if (ROOT / "cards" / f"{name}.md").is_file()]
        yield from ([f"Card: {', '.join(links)}.", ""] if links else [])
        rows = []
        for row in settings_of(settings):
            default = "must be given" if row["required"] else f"`{written(row['default'])}`" if written(row["default"]).strip() else "empty"
            rows.append((f"`{row['name']}`", row["type"], default, row["bounds"], row["description"]))
        yield from table(("setting", "type", "default", "bounds", "meaning"), rows) if rows else ("No settings.", "")


def card(text: str) -> str:
    """A card as it stands: a plain text of a person, not markup of ours."""
    title, _, rest = text.partition("\n")
    return f"{title}\n\n```text\n{rest.strip()}\n```\n"


def card_list(cards: dict[str, str]) -> Iterator[str]:
    """All cards with their titles."""
    yield from ("# Cards", "", "What each method or benchmark rests on: source, formulas, what must hold, and how sure we are.", "")
    yield from (f"- [{name}](cards/{name}.md): {cell(text.splitlines()[0].lstrip('# '))}" for name, text in cards.items())


def commands() -> Iterator[str]:
    """`--help` of every command, and the exit codes."""
    import typer

    from letheon.cli import main

    about = ast.get_docstring(ast.parse(Path(main.__file__).read_text(encoding="utf-8"))) or ""
    exits = re.sub(r"\s+", " ", about).partition("Exit codes: ")[2]
    yield from ("# Commands", "", "Data goes to stdout, progress and errors to stderr; `--json` prints data as JSON.", "")
    codes = [tuple(part.strip().split(" ", 1)) for part in exits.split(".")[0].split(", ")]
    yield from ("## Exit codes", "", *table(("code", "meaning"), [(f"`{code}`", meaning) for code, meaning in codes]))
    yield from helped(typer.main.get_command(main.app), "letheon")


def helped(command: Any, name: str, parent: Any = None) -> Iterator[str]:
    """The help of a command and of those below it, at 100 columns."""
    wide = {"terminal_width": 100, "max_content_width": 100}
    context = command.make_context(name.split(" ")[-1], [], parent=parent, resilient_parsing=True, **wide)
    yield from (f"## {name}", "", "```text", command.get_help(context).strip(), "```", "")
    for key in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from helped(command.get_command(context, key), f"{name} {key}", context)


def fields(model: Any) -> Iterator[str]:
    """What a pydantic model says of itself, and its fields from its JSON schema."""
    schema = model.model_json_schema()
    yield from prose(inspect.getdoc(model) or "")
    rows: list[tuple[Any, ...]] = []
    for key, value in schema.get("properties", {}).items():
        ways = value.get("anyOf", [value])
        kinds = [one.get("type") or one.get("$ref", "").rsplit("/", 1)[-1] or json.dumps(one.get("const", "")) for one in ways]
        default = "must be given" if key in schema.get("required", ()) else f"`{json.dumps(value.get('default'))}`"
        rows.append((f"`{key}`", " or ".join(map(str, kinds)), default, value.get("description", "")))
    yield from table(("field", "type", "default", "meaning"), rows)


def formats() -> Iterator[str]:
    """The files that letheon writes and reads, from the models that check them."""
    from letheon.core import findings, subject
    from letheon.flow import grid, recipe
    from letheon.ledger import evidence, records

    told: list[tuple[str, Any, str]] = [
        ("findings.json", findings.Findings, "What an audit found. A report is made from it alone."),
        ("A finding", findings.Finding, "One measured value in `findings.json`."),
        ("A leftover", findings.Leftover, "One row to forget in `findings.json`, and what each model says to it."),
        ("Recipe (TOML)", recipe.Recipe, "Read by `letheon run`. A key that is no field goes to the method."),
        ("Sweep (TOML)", grid.Sweep, "Read by `letheon sweep`."),
        ("A range in a sweep", grid.Span, "`{ low = 1e-4, high = 2e-3, log = true }`, only where there are trials."),
        ("Request", records.Request, "One request in the ledger of a desk."),
        ("Event", records.Event, "One entry of the history of a desk; each holds the digest of the one before."),
        ("Hit", records.Hit, "One row that a request is about; a line of a review file."),
        ("Generation", records.Generation, "One model of a lineage."),
    ]
    yield from ("# File formats", "", "Made from the models that read and write these files. No pickle is read or written.", "")
    for title, model, meaning in told:
        yield from (f"## {title}", "", meaning, "", *fields(model))
    about = "Beside the weights of every model that letheon writes; other tools ignore it. `encoder`: template, system message and"
    about += " longest row; `guards`: folders of watches; `made`: for a sweep's own models, what they were"
    about += " made with; `lineage`: every method applied so far, oldest first, each with"
    yield from ("## letheon.json", "", about, "")
    comments = dict(re.findall(r"^    (\w+): .*?# (.*)$", Path(subject.__file__).read_text(encoding="utf-8"), re.MULTILINE))
    steps = subject.Step.__annotations__.items()
    yield from table(("field", "type", "meaning"), [(f"`{key}`", f"`{kind}`", comments.get(key, "")) for key, kind in steps])
    about = "One JSON object a line, written as it happens: `time`, `step`, and what the method measures on its way."
    yield from ("## metrics.jsonl", "", about, "")
    yield from ("## Evidence bundle", "", *prose(evidence.__doc__ or ""))

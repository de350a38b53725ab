"""How Sphinx makes the site. What follows from the code is written anew at each build, so it cannot be stale."""

import re
import sys
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sphinx.application import Sphinx  # noqa: E402

from runledger.cli.exits import EXIT_CODES, ExitCode  # noqa: E402
from runledger.postgres.tables import metadata  # noqa: E402
from runledger.version import package_version  # noqa: E402

project = "Runledger"
author = "The Runledger authors"
copyright = author
release = package_version()

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["examples"]
html_theme = "furo"
html_title = "Runledger"
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository; test_links looks after them

autodoc_member_order = "bysource"
maximum_signature_line_length = 80  # a longer one has a line for each parameter
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

HELP = ROOT / "tests" / "acceptance" / "help"
SECTION = re.compile(r'^    # (?P<title>.+)$|^    "(?P<name>\w+)",$', re.MULTILINE)


def api_page() -> str:
    """Every public name under the headings of ``__all__``; of the errors only the root, since a page lists them all."""
    listing = (ROOT / "runledger" / "__init__.py").read_text().rpartition("__all__ = [")[2]
    parts = ["# Python API\n\nEverything public is exported flat from `runledger`.\n"]
    for match in SECTION.finditer(listing):
        title, name = match["title"], match["name"]
        if title:
            parts.append(f"\n## {title.capitalize()}\n")
        elif name != "__version__":
            parts.append(_directive(name))
    parts.append("\n## Errors\n\nThe page [errors](errors.md) lists them all, each with its code.\n")
    parts += [_directive("RunledgerError"), _directive("FieldDifference")]
    return "".join(parts)


def _directive(name: str) -> str:
    import runledger

    value = getattr(runledger, name)
    if isinstance(value, type):
        directive = f"autoclass:: runledger.{name}\n   :members:\n   :exclude-members: __new__, __init__"
        if issubclass(value, Enum):
            directive += "\n   :undoc-members:"
        if value.__mro__[1].__module__.startswith("runledger."):
            directive += "\n   :inherited-members: Exception"
    else:
        directive = f"{'autofunction' if callable(value) else 'autodata'}:: runledger.{name}"
    return f"\n```{{eval-rst}}\n.. {directive}\n```\n"


MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.UNEXPECTED: "a defect, of ours or of what is stored",
    ExitCode.USAGE: "the command, or what it was given, is wrong as it stands",
    ExitCode.CHECK_SAID_NO: (
        "a check says no (`health`, `doctor`, `preflight`, `migrate --check`), or the awaited job failed"
    ),
    ExitCode.NOT_FOUND: "what was named does not exist",
    ExitCode.REFUSED: "the stored state or a missing right forbids it, or nobody confirmed it",
    ExitCode.TIME_RAN_OUT: "it was not done in the time that was given",
    ExitCode.UNAVAILABLE: "the database cannot be used now",
    ExitCode.CONFIGURATION: "settings, application or schema are wrong: a person has to change something",
    ExitCode.INTERRUPTED: "Ctrl-C",
}


def cli_page() -> str:
    """The help of every command, as a test has compared it with what the program says."""
    parts = [
        "# Command line\n\nOptions stand behind the command. Data goes to standard output, all else to standard error; "
        "`--json` prints one document. The variables stand in [settings](settings.md).\n\n",
        "| Status | Meaning | Errors |\n| --- | --- | --- |\n",
        "".join(f"| {code.value} | {MEANINGS[code]} | {_errors_that_end_with(code)} |\n" for code in ExitCode),
        "\nAn error that is not named ends like the nearest class above it in the [tree](errors.md).\n",
    ]
    for path in sorted(HELP.glob("*.txt")):
        words = path.stem.split("_")
        text = path.read_text().partition("\nShared options:\n")[0] if len(words) > 2 else path.read_text()
        heading = "#" * min(len(words) + 1, 3)
        block = f"```{{code-block}} text\n:class: help\n\n{text.strip()}\n```"
        parts.append(f"\n{heading} {' '.join(words)}\n\n{block}\n")
    return "".join(parts)


def _errors_that_end_with(code: ExitCode) -> str:
    return ", ".join(f"`{kind.__name__}`" for kind, its_code in EXIT_CODES.items() if its_code is code)


def tables_page() -> str:
    """Every table with its columns."""
    parts = [
        "# Tables\n\nThe schema is called `runledger` unless you chose another name. `sql/` has the whole definition.\n"
    ]
    for table in metadata.tables.values():
        parts.append(f"\n## {table.name}\n\n| Column | Type | |\n| --- | --- | --- |\n")
        for column in table.columns:
            notes = [word for word, holds in (("key", column.primary_key), ("not null", not column.nullable)) if holds]
            parts.append(f"| `{column.name}` | {column.type} | {', '.join(notes)} |\n")
    return "".join(parts)


def write_pages(_app: Sphinx) -> None:
    """The pages that follow from the code stand beside the others before Sphinx reads them."""
    for name, page in (("api.md", api_page), ("cli.md", cli_page), ("tables.md", tables_page)):
        path = ROOT / "docs" / "reference" / name
        text = page()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx) -> None:
    """Sphinx calls this once."""
    app.connect("builder-inited", write_pages)

"""Every page whose blocks can be run is run, top to bottom, in an empty folder with a migrated database of its own."""

import sys
from pathlib import Path

import pytest
from pages.evaluation import console_block, environment_of_a_reader, python_block, sql_block
from pages.terminal import Terminal
from sybil import Sybil
from sybil.parsers.myst import CodeBlockParser, SkipParser

from runledger.testing import databases

DOCS = Path(__file__).parents[2] / "docs"
RUN_ELSEWHERE = {
    "how-to/django.md": "contrib/django/test_how_to_django.py",
    "how-to/workflows.md": "acceptance/test_how_to_workflows.py",
}
"""Pages that a test of their own follows."""

PARSERS = [
    CodeBlockParser(language="python", evaluator=python_block),
    CodeBlockParser(language="console", evaluator=console_block),
    CodeBlockParser(language="sql", evaluator=sql_block),
    SkipParser(),
]
FENCE = "```"


def pages() -> list[str]:
    """Those with a block of Python, SQL or a console."""
    names = (path.relative_to(DOCS).as_posix() for path in sorted(DOCS.glob("*/*.md")))
    return [
        name
        for name in names
        if name not in RUN_ELSEWHERE
        and any(f"{FENCE}{language}\n" in (DOCS / name).read_text() for language in ("python", "console", "sql"))
    ]


@pytest.mark.process
@pytest.mark.parametrize("name", pages())
def test_a_page_does_what_it_shows(
    name: str, server_url: str, database_template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = Sybil(parsers=PARSERS, path=str(DOCS)).parse(DOCS / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)
    with databases.ephemeral_database(server_url, database_template, prefix="page") as url:
        environment = environment_of_a_reader(url)
        monkeypatch.setenv("RUNLEDGER_DATABASE_URL", url)
        terminal = Terminal(tmp_path, environment)
        try:
            document.namespace.update(place=tmp_path, terminal=terminal, url=url)
            for example in document.examples():
                example.evaluate()
        finally:
            terminal.close()
            for added in set(sys.modules) - modules:
                if str(getattr(sys.modules[added], "__file__", "") or "").startswith(str(tmp_path)):
                    del sys.modules[added]


@pytest.mark.parametrize("test", sorted(set(RUN_ELSEWHERE.values())))
def test_a_page_that_is_not_run_here_names_the_test_that_runs_it(test: str) -> None:
    assert (DOCS.parent / "tests" / test).exists()

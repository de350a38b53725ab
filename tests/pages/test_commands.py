"""Every command line of ours that a page or a deployment file shows is one that the program understands, also where it
cannot be run; and a block of shell that its page does not run says why."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from runledger.cli.main import PROGRAM, root

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MADE_BY_THE_BUILD = {DOCS / "reference" / name for name in ("api.md", "cli.md", "tables.md")}
PAGES = sorted({*ROOT.glob("*.md"), ROOT / "llms.txt", *DOCS.rglob("*.md")} - MADE_BY_THE_BUILD)
DEPLOYMENT_FILES = sorted(path for path in (DOCS / "deploy").iterdir() if path.suffix != ".json")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LANGUAGES_OF_SHELLS = ("sh", "console", "text")
LIST_OF_WORDS = re.compile(r'\[("[^]]+")\]')
UNREAD_BLOCK = re.compile(r"^(?P<before>.*)\n```(?:sh|bash|shell)\n", re.MULTILINE)
MARK = re.compile(r"<!-- (?:not run: .+|typed by (?P<test>tests/\S+\.py)) -->")


def commands_in(path: Path) -> list[list[str]]:
    """The words behind the name of the program, for each command that the file shows."""
    text = path.read_text()
    if path in DEPLOYMENT_FILES:
        lines = [re.sub(r"^\s*[\w-]+[:=]\s*", "", line) for line in text.splitlines()]
        lines = [LIST_OF_WORDS.sub(lambda one: one[1].replace(",", " "), line) for line in lines]
    else:
        blocks = [code for language, code in BLOCK.findall(text) if language in LANGUAGES_OF_SHELLS]
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        lines += [code for code in re.findall(r"`([^`]+)`", BLOCK.sub("", text)) if code.startswith(f"{PROGRAM} ")]
    return [command for line in lines for command in _commands_of(line)]


def _commands_of(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # an apostrophe: this is no command but what one says
        return
    for position, word in enumerate(words):
        if word.rpartition("/")[2] == PROGRAM and not word.startswith("-"):
            rest = words[position + 1 :]
            end = next((number for number, one in enumerate(rest) if set(one) <= set("();<>|&")), len(rest))
            yield rest[:end]


def complaint_about(words: list[str]) -> str | None:
    """What the program would say to these words before it looks at their values; None when they are understood."""
    command: click.Command = root
    context = click.Context(root, info_name=PROGRAM, **root.context_settings)
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        if found is None:
            return f"{context.command_path} has no command {rest[0]!r}"
        context = click.Context(found, info_name=rest.pop(0), parent=context, **found.context_settings)
        command = found
    if command.name == "enqueue":  # its bare --wait takes no value
        rest = ["--wait=" if one == "--wait" else one for one in rest]
    try:
        command.make_parser(context).parse_args(rest)
    except click.UsageError as error:
        return error.format_message()
    return None


@pytest.mark.parametrize("path", [*PAGES, *DEPLOYMENT_FILES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_that_is_shown_exists_with_its_options(path: Path) -> None:
    wrong = {f"{PROGRAM} {' '.join(words)}": complaint_about(words) for words in commands_in(path)}

    assert {command: complaint for command, complaint in wrong.items() if complaint} == {}


def test_the_pages_show_commands_and_wrong_ones_would_be_seen() -> None:
    assert sum(len(commands_in(path)) for path in PAGES) > 150
    assert all(commands_in(path) for path in DEPLOYMENT_FILES if path.suffix != ".yaml" or "kubernetes" in path.name)
    assert complaint_about(["job", "explian"]) == "runledger job has no command 'explian'"
    assert complaint_about(["worker", "--procesess", "2"]) is not None
    assert complaint_about(["worker", "--processes", "2"]) is None


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.relative_to(DOCS).as_posix())
def test_a_block_of_shell_that_its_page_does_not_run_says_why(path: Path) -> None:
    for block in UNREAD_BLOCK.finditer(path.read_text()):
        mark = MARK.fullmatch(block["before"])
        assert mark, f"no mark stands above {path.read_text()[block.end() :].splitlines()[0]!r}"
        assert mark["test"] is None or path.name in (ROOT / mark["test"]).read_text()

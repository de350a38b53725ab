"""The page for people of the Rust workspace says what each name is called here; these names exist."""

import re
from functools import reduce
from pathlib import Path

import pytest

import runledger
import runledger.testing
import runledger_pytest

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "seed.md").read_text()
NAMES = PAGE.partition("\n## Names\n")[2].partition("\n## ")[0]
OF_OUR_OBJECTS = {"job_type", "execute", "code", "internal_message"}
"""Attributes of values that the same row names."""


def names_of_the_second_column() -> list[str]:
    rows = re.findall(r"^\| .+ \| (.+) \|$", NAMES, re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`([A-Za-z_][\w.]*)`", row)}
    return sorted(names - OF_OUR_OBJECTS)


def test_the_page_names_most_of_what_there_is() -> None:
    assert len(names_of_the_second_column()) > 70


@pytest.mark.parametrize("name", names_of_the_second_column())
def test_a_name_that_stands_for_one_of_the_workspace_exists(name: str) -> None:
    if name.startswith("runledger_"):
        assert hasattr(runledger_pytest, name)
        return
    path = name.removeprefix("runledger.").split(".")

    assert path[0] in runledger.__all__ or name.startswith("runledger.testing.")
    reduce(getattr, path, runledger)

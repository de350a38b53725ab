"""Continuous integration runs what the package says that it supports, and nothing else."""

import re
import tomllib

from architecture.sources import ROOT

from runledger.testing import server_choice

WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEWEST_POSTGRESQL = 18
MAKEFILE = (ROOT / "Makefile").read_text()


def _versions(name: str) -> list[str]:
    """Every version that a job or a matrix names for it, in numerical order."""
    texts = re.findall(rf"\b{name}(?:-version)?: (\[[^\]]*\]|\"[\d.]+\")", WORKFLOW)
    found = {version for text in texts for version in re.findall(r"\d+(?:\.\d+)?", text)}
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def test_every_python_that_the_package_names_is_tried_and_no_other() -> None:
    named = [one.rpartition(" ")[2] for one in PROJECT["classifiers"] if one.startswith("Programming Language")]

    assert _versions("python") == [version for version in named if "." in version]
    assert PROJECT["requires-python"] == f">={_versions('python')[0]}"


def test_every_postgresql_from_the_oldest_that_is_supported_is_tried() -> None:
    oldest = server_choice.OLDEST_SERVER_VERSION // 10_000

    assert _versions("postgresql") == [str(version) for version in range(oldest, NEWEST_POSTGRESQL + 1)]


def test_every_job_has_the_pooler_that_a_test_fails_without_and_runs_what_exists() -> None:
    jobs = re.split(r"^  \w+:\n", WORKFLOW.partition("\njobs:\n")[2], flags=re.MULTILINE)[1:]

    assert len(jobs) == 3
    for job in jobs:
        commands = re.findall(r"^      - run: (.+)$", job, re.MULTILINE)
        assert "pgbouncer" in commands[0]
        target = commands[-1].removeprefix("make ")
        assert (ROOT / target).is_file() or f"\n{target}:" in MAKEFILE

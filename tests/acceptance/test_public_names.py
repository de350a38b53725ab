"""What ``import runledger`` gives, and how little it costs."""

import subprocess
import sys

from acceptance.command_line import clean_environment

import runledger
from runledger.core import errors, operation_errors, workflow_errors
from runledger.core.catalog import JobCatalog


def loaded_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=clean_environment()
    )
    return set(result.stdout.split())


def test_every_public_name_exists_once() -> None:
    assert len(runledger.__all__) == len(set(runledger.__all__))
    for name in runledger.__all__:
        assert getattr(runledger, name) is not None
    assert set(runledger.__all__) <= set(dir(runledger))


def test_every_error_is_public() -> None:
    kinds = {
        name
        for name, value in (vars(errors) | vars(operation_errors) | vars(workflow_errors)).items()
        if isinstance(value, type) and name[0] != "_"
    }
    assert kinds - {"ClassVar", "NamedTuple"} <= set(runledger.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    assert not hasattr(runledger, "enqueue_jbo")


def test_the_public_catalog_is_one_of_the_core() -> None:
    assert issubclass(runledger.JobCatalog, JobCatalog)


def test_importing_the_package_brings_neither_driver_nor_command_line() -> None:
    heavy = {"click", "sqlalchemy", "psycopg", "psycopg_pool"}
    assert not heavy & loaded_after("import runledger")
    assert heavy - {"click"} <= loaded_after("from runledger import Ledger")


def test_help_and_version_bring_no_driver() -> None:
    for argument in ("--version", "--help"):
        program = f"from runledger.cli.main import run\nassert run([{argument!r}]) == 0"
        assert not {"sqlalchemy", "psycopg"} & loaded_after(program)

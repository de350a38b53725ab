"""How a command ends: the exit codes, and the one table that says which error leads to which."""

import json
import traceback
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import click

from runledger.cli.output import one_line
from runledger.core import errors, workflow_errors
from runledger.core.errors import ForbiddenError, RunledgerError


class ExitCode(IntEnum):
    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    CHECK_SAID_NO = 3
    NOT_FOUND = 4
    REFUSED = 5
    TIME_RAN_OUT = 6
    UNAVAILABLE = 69
    CONFIGURATION = 78
    INTERRUPTED = 130


class ConfirmationMissing(ForbiddenError):
    """Many jobs would change, and nobody has agreed to it."""

    code = "cli.confirmation_missing"


EXIT_CODES: Mapping[type[RunledgerError], ExitCode] = {
    RunledgerError: ExitCode.UNEXPECTED,
    errors.InternalError: ExitCode.UNEXPECTED,
    errors.ValidationError: ExitCode.USAGE,
    errors.DefinitionNotFoundOrDisabled: ExitCode.REFUSED,
    errors.DisabledJobType: ExitCode.REFUSED,
    errors.WorkflowRequeueNotSupported: ExitCode.REFUSED,
    workflow_errors.ExternalStepNotExternal: ExitCode.REFUSED,
    workflow_errors.ExternalStepNotWaiting: ExitCode.REFUSED,
    workflow_errors.ExternalStepOutputPathMissing: ExitCode.REFUSED,
    errors.NotFoundError: ExitCode.NOT_FOUND,
    errors.ConflictError: ExitCode.REFUSED,
    errors.ForbiddenError: ExitCode.REFUSED,
    errors.WaitTimedOut: ExitCode.TIME_RAN_OUT,
    errors.UnavailableError: ExitCode.UNAVAILABLE,
    errors.ConfigurationError: ExitCode.CONFIGURATION,
}
"""The nearest class decides: an error that is not named here ends like the class above it in the tree."""

SCHEMA_ERRORS = (
    errors.SchemaMissing,
    errors.SchemaBehind,
    errors.SchemaAhead,
    errors.SchemaChanged,
    errors.ConstraintNotValidated,
)
"""What a check of the schema may answer; then the exit code is that of a check, not of a bad configuration."""


class Complaint(NamedTuple):
    """What is said when a command fails."""

    code: str
    message: str
    hint: str | None = None


def exit_code_of(error: RunledgerError) -> ExitCode:
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def complain(complaint: Complaint, *, is_json: bool) -> None:
    """One line on standard error, or one JSON document."""
    if is_json:
        click.echo(json.dumps({"error": complaint._asdict()}), err=True)
        return
    hint = f" (hint: {complaint.hint})" if complaint.hint else ""
    click.echo(f"{click.style('Error:', fg='red')} {one_line(complaint.message + hint)}", err=True)


def complain_of(error: RunledgerError, *, is_json: bool, is_verbose: bool) -> None:
    """The error as people may see it; with ``is_verbose`` also what the server or the driver said."""
    hint = error.hint
    if error.internal_message and not is_verbose and not hint:
        hint = "-v shows what the server said"
    complain(Complaint(error.code, str(error), hint), is_json=is_json)
    if error.internal_message and is_verbose and not is_json:
        click.echo(f"Detail: {one_line(error.internal_message)}", err=True)


def complain_of_unexpected(error: BaseException, *, is_json: bool, is_verbose: bool) -> None:
    """A defect, in one line; with ``is_verbose`` its traceback before."""
    if is_verbose:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    message = f"unexpected {type(error).__name__}: {error}"
    complain(Complaint("cli.unexpected", message, None if is_verbose else "-v shows where"), is_json=is_json)

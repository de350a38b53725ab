"""What people type as a value: durations, moments, tenants, JSON. A value that does not parse is a usage error."""

import functools
import getpass
import json
import os
import re
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import click

from runledger.cli.completing import job_types
from runledger.core.errors import InvalidPayload, InvalidRequest
from runledger.core.filters import JobFilter
from runledger.core.gate import DECODE_LIMIT
from runledger.core.jobs import JsonValue, Scope
from runledger.core.states import JobStatus

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


class Duration(click.ParamType[float]):
    """Seconds, or a number with a unit: ``90``, ``500ms``, ``5m``, ``1.5h``, ``2d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _DURATION.fullmatch(str(value).strip())
        if found is None:
            self.fail("is not a duration such as 90, 500ms, 5m, 1.5h or 2d", param, ctx)
        return float(found[1]) * _SECONDS[found[2] or "s"]


class Moment(click.ParamType[datetime]):
    """A time with its zone: ``2027-01-02T03:04:05Z``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = datetime.fromisoformat(str(value).strip())
        except ValueError:
            self.fail("is not a time such as 2027-01-02T03:04:05Z", param, ctx)
        if moment.tzinfo is None:
            self.fail("needs a time zone, as in 2027-01-02T03:04:05Z", param, ctx)
        return moment


class Tenant(click.ParamType[Scope]):
    """An organization's UUID, or ``none`` for what belongs to no organization."""

    name = "uuid|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Scope:
        if isinstance(value, Scope):
            return value
        if value == "none":
            return Scope.global_only()
        try:
            return Scope.organization(value)
        except ValueError:
            self.fail("is neither a UUID nor 'none'", param, ctx)


DURATION, MOMENT, TENANT = Duration(), Moment(), Tenant()

_JOB_FILTERS = (
    click.option("--status", type=click.Choice([status.value for status in JobStatus], case_sensitive=False)),
    click.option("--type", "job_type", metavar="TYPE", shell_complete=job_types, help="Only jobs of this type."),
    click.option("--queue", metavar="NAME", help="Only jobs of the types in this queue."),
    click.option("--tag", metavar="TAG", help="Only jobs with this tag."),
    click.option("--error-code", metavar="CODE", help="Only jobs that ended with this error."),
    click.option("--created-after", type=MOMENT, metavar="TIME", help="Only jobs enqueued at this time or later."),
    click.option("--created-before", type=MOMENT, metavar="TIME", help="Only jobs enqueued before this time."),
)
organization_filter = click.option(
    "--organization",
    "scope",
    type=TENANT,
    metavar="UUID|none",
    default=Scope.any,
    show_default="all",
    help="Only what belongs to this organization, or to none.",
)


class Choice(NamedTuple):
    """Which jobs the options of a command mean."""

    wanted: JobFilter
    scope: Scope

    @property
    def is_everything(self) -> bool:
        return self.wanted.is_empty and self.scope == Scope.any()


def job_filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that choose jobs; the function gets a ``choice``."""

    @functools.wraps(function)
    def with_choice(
        *arguments: Any,
        status: str | None,
        job_type: str | None,
        queue: str | None,
        tag: str | None,
        error_code: str | None,
        created_after: datetime | None,
        created_before: datetime | None,
        scope: Scope,
        **options: Any,
    ) -> Any:
        chosen = JobFilter(job_type, status, queue, tag, error_code, created_after, created_before)
        return function(*arguments, choice=Choice(chosen, scope), **options)

    filtered: Callable[..., Any] = organization_filter(with_choice)
    for option in reversed(_JOB_FILTERS):
        filtered = option(filtered)
    return filtered


def read_payload(argument: str, *, what: str = "payload") -> JsonValue:
    """The JSON value of ``argument``, of the file after an ``@``, or of standard input for ``-``.

    Raises InvalidPayload, which says ``what`` is wrong and never repeats the text, or InvalidRequest for a file that
    cannot be read.
    """
    if argument == "-":
        text = _decoded(sys.stdin.buffer.read(DECODE_LIMIT + 1), "standard input")
    elif argument.startswith("@"):
        text = _decoded(_read_file(Path(argument[1:])), f"the {what} file")
    else:
        text = argument
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidPayload(f"{what} is not JSON: {error.msg} ({place})") from None
    except (ValueError, RecursionError):
        raise InvalidPayload(f"{what} is JSON outside the limits of depth or digits") from None


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(DECODE_LIMIT + 1)
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}") from None


def _decoded(data: bytes, source: str) -> str:
    if len(data) > DECODE_LIMIT:
        raise InvalidPayload(f"{source} is larger than {DECODE_LIMIT:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidPayload(f"{source} is not UTF-8 text") from None


def is_duration_with_unit(text: str) -> bool:
    """Whether it is a duration such as ``5s``, which nobody can take for a number."""
    found = _DURATION.fullmatch(text)
    return found is not None and found[2] is not None


def acting_person() -> str:
    """Who changes something, for the timeline: the user of this machine."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # a container may run under a number without a name
        return f"cli:uid-{os.getuid()}"

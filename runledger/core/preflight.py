"""The preflight of a deploy: what is stored, judged by the catalog of the new code before that code runs.

Nothing here runs a handler. The payload types do run, as they do before an attempt; they are the application's.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from runledger.core.catalog import JobCatalog
from runledger.core.errors import InvalidPayload, RunledgerError, UnknownJobType
from runledger.core.failures import exception_code
from runledger.core.gate import MESSAGE_LIMIT, clean_text, decode_json

MOST_EXAMPLES: Final = 5
MOST_FLAWS: Final = 20
"""Reasons that are told apart within one job type. A refusal names a place in its payload, and there may be many."""

OTHER_FLAWS: Final = "refused for other reasons than the first ones"


class PreflightSource(StrEnum):
    """Where it is stored: as a job that waits or is leased, or as the payload of an active schedule."""

    JOBS = "JOBS"
    SCHEDULES = "SCHEDULES"


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """What the catalog cannot run, by job type and reason: ``count`` jobs or schedules.

    ``code`` and ``message`` are what an attempt would fail with, or say that the catalog lacks the type; they never
    repeat a payload. ``examples`` are ids of jobs, the oldest first, or names of schedules; five at most.
    """

    source: PreflightSource
    job_type: str
    code: str
    message: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """What the catalog cannot run among the ``jobs`` and ``schedules`` that were looked at; ``is_complete`` when these
    are all there were."""

    findings: tuple[PreflightFinding, ...]
    jobs: int
    schedules: int
    is_complete: bool

    @property
    def is_clear(self) -> bool:
        """Whether all was looked at, and the catalog can run it."""
        return self.is_complete and not self.findings


class StoredPayload(NamedTuple):
    """A job's id or a schedule's name, its job type, and its payload as JSON text."""

    name: str
    job_type: str
    payload: str


class Flaw(NamedTuple):
    """Why the catalog cannot run it."""

    code: str
    message: str


@dataclass(slots=True)
class _Group:
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Preflight:
    """Counts what ``catalog`` cannot run. With ``ignore_unknown_types``, others serve the types that it lacks."""

    def __init__(self, catalog: JobCatalog, *, ignore_unknown_types: bool) -> None:
        self._catalog = catalog
        self._ignores_unknown_types = ignore_unknown_types
        self._groups: dict[tuple[PreflightSource, str], dict[Flaw, _Group]] = {}
        self._looked_at = dict.fromkeys(PreflightSource, 0)

    def look(self, source: PreflightSource, stored: Iterable[StoredPayload]) -> None:
        """Each is judged and counted."""
        for one in stored:
            self._looked_at[source] += 1
            flaw = self._flaw_of(one)
            if flaw is not None:
                self._note(source, one, flaw)

    def report(self, *, is_complete: bool) -> PreflightReport:
        """Jobs before schedules, then by job type; within one, as the reasons were met."""
        findings = [
            PreflightFinding(source, job_type, flaw.code, flaw.message, group.count, tuple(group.examples))
            for (source, job_type), groups in sorted(self._groups.items(), key=lambda item: item[0])
            for flaw, group in groups.items()
        ]
        jobs, schedules = (self._looked_at[source] for source in PreflightSource)
        return PreflightReport(tuple(findings), jobs, schedules, is_complete)

    def _flaw_of(self, stored: StoredPayload) -> Flaw | None:
        if stored.job_type in self._catalog:
            return flaw_of(self._catalog, stored.job_type, stored.payload)
        return None if self._ignores_unknown_types else _UNKNOWN

    def _note(self, source: PreflightSource, stored: StoredPayload, flaw: Flaw) -> None:
        groups = self._groups.setdefault((source, stored.job_type), {})
        if flaw not in groups and len(groups) >= MOST_FLAWS:
            flaw = _OTHER
        group = groups.setdefault(flaw, _Group())
        group.count += 1
        if len(group.examples) < MOST_EXAMPLES:
            group.examples.append(stored.name)


_UNKNOWN: Final = Flaw(UnknownJobType.code, "the catalog has no job of this type")
_OTHER: Final = Flaw(InvalidPayload.code, OTHER_FLAWS)


def flaw_of(catalog: JobCatalog, job_type: str, payload: str) -> Flaw | None:
    """Why an attempt at this payload would fail before its handler is called; None when it would be called. Raises
    UnknownJobType."""
    handler = catalog.handler(job_type)
    try:
        handler.payload_type.from_json(decode_json(payload, error=InvalidPayload))
    except RunledgerError as error:
        return Flaw(error.code, clean_text(error, MESSAGE_LIMIT))
    except (Exception, SystemExit) as error:  # the type is the application's; its text may repeat the payload
        return Flaw(exception_code(error), "the payload type raised this exception")
    return None

"""Was this job enqueued? With an answer that says what was there instead."""

import json
from collections.abc import Iterator, Mapping

from runledger.core.jobs import Job, JsonValue, Scope
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.reads import list_jobs

MOST_JOBS_READ = 1_000
MOST_JOBS_SHOWN = 5
LONGEST_SHOWN = 200


def assert_enqueued(
    connection: AnyConnection,
    job_type: str,
    *,
    payload_contains: JsonValue = None,
    count: int | None = None,
) -> list[Job]:
    """The matching jobs, the oldest first: of this type, in whatever state, whose payload contains
    ``payload_contains`` (objects by key at any depth, everything else equal).

    Looks at what ``connection`` sees, its own open transaction included, at the newest thousand jobs of the type.
    Raises AssertionError unless there are ``count`` of them, or at least one; its text shows how the nearest differ.
    """
    ledger = borrow(connection)
    found = list_jobs(ledger, scope=Scope.any(), job_type=job_type, limit=MOST_JOBS_READ)[::-1]
    matching = [job for job in found if not list(_differences(payload_contains, job.payload))]
    if len(matching) == count or (count is None and matching):
        return matching
    wanted = "at least one job" if count is None else f"{count} job{'' if count == 1 else 's'}"
    containing = "" if payload_contains is None else f" with a payload containing {_shown(payload_contains)}"
    lines = [f"expected {wanted} of type {job_type!r}{containing}; {len(matching)} of {len(found)} match"]
    lines += _described(found, payload_contains)
    if not found:
        others = sorted({job.job_type for job in list_jobs(ledger, scope=Scope.any(), limit=MOST_JOBS_READ)})
        lines.append(f"  job types that were enqueued: {', '.join(others) or 'none'}")
    raise AssertionError("\n".join(lines))


def _described(found: list[Job], wanted: JsonValue) -> Iterator[str]:
    compared = sorted(((list(_differences(wanted, job.payload)), job) for job in found), key=lambda pair: len(pair[0]))
    for differences, job in compared[:MOST_JOBS_SHOWN]:
        yield f"  {job.job_id} {job.status} {_shown(job.payload)}"
        yield from (f"    {difference}" for difference in differences)
    if len(compared) > MOST_JOBS_SHOWN:
        yield f"  and {len(compared) - MOST_JOBS_SHOWN} more"


def _differences(wanted: JsonValue, stored: JsonValue, path: str = "payload") -> Iterator[str]:
    if wanted is None and path == "payload":
        return
    if isinstance(wanted, Mapping) and isinstance(stored, Mapping):
        for key, value in wanted.items():
            if key in stored:
                yield from _differences(value, stored[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}: expected {_shown(value)}, and it is missing"
    elif wanted != stored or isinstance(wanted, bool) is not isinstance(stored, bool):
        yield f"{path}: expected {_shown(wanted)}, stored {_shown(stored)}"


def _shown(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"

"""The page of defaults and limits: what a job has when nobody says otherwise, and what it may hold."""

from dataclasses import MISSING, fields
from typing import Any

from runledger.core import context, dag, definitions, gate, headers, limits, rates, schedules
from runledger.runtime import reporter

HEAD = """# Jobs: defaults and limits

<!-- {note} -->

A value outside its limits is refused before anything is stored, with the name of the field. The settings of
processes, such as lease time and retention, stand in [settings](settings.md).

## Settings of a job type

From the weakest to the strongest: these defaults, `JobCatalog(...)`, `@catalog.job(...)`, and for priority, attempts
and timeout the request. [Retries](../how-to/retries.md) says what the policy means.

"""

OF_A_TYPE = (
    ("max_attempts", f"1 to {limits.MAX_ATTEMPTS:,}", "attempts in one run, the first one included"),
    ("timeout_seconds", f"1 to {limits.MAX_TIMEOUT_SECONDS:,} (a week)", "of one attempt"),
    ("priority", "32 bits", "higher first"),
    ("queue", "an identifier", "of the type; no request names another"),
    ("crash_budget", f"1 to {limits.MAX_CRASH_BUDGET}", "deaths of the process in one run"),
    ("max_running", f"1 to {limits.MAX_INT32:,}", "jobs of the type that run at once, over all hosts"),
    ("rate_limit", f"1 to {rates.MAX_STARTS:,} in 1 s to 7 d", "starts of the type, over all hosts: `100/m`, `5/10s`"),
)
OF_THE_POLICY = (
    ("base_seconds", f"above 0, to {limits.MAX_RETRY_SECONDS:,} (30 days)", "pause after attempt n: base × factor^n"),
    ("factor", "1 to 10", "stops growing at the tenth attempt"),
    ("cap_seconds", f"above 0, to {limits.MAX_RETRY_SECONDS:,}", "no pause of the formula is longer"),
    ("jitter", "", "the pause is drawn between 0 and the formula's, at least 1 s"),
)
OF_WHAT_IS_STORED = (
    (
        "payload, output, checkpoint, runtime config",
        f"{gate.JSON_LIMIT:,} bytes of JSON each, {gate.MAX_DEPTH} levels deep",
    ),
    ("job type, queue, failure code, step key, workflow type", f"{gate.IDENTIFIER_LIMIT} bytes"),
    ("idempotency key, active key", f"{gate.KEY_LIMIT} bytes"),
    ("tags", f"{limits.MAX_TAGS}, each of {gate.TAG_LIMIT} bytes"),
    ("headers", f"{headers.MAX_HEADERS}, together {headers.HEADERS_LIMIT:,} bytes"),
    ("delay, `Snooze`, `Continue`, `idempotency_ttl`", f"{limits.MAX_DELAY_SECONDS // 86_400:,} days"),
    ("message of a failure", f"{gate.MESSAGE_LIMIT:,} bytes; the rest is cut"),
    ("traceback", f"{gate.TRACEBACK_LIMIT:,} bytes; the rest is cut"),
    ("line of `context.log`", f"{context.LOG_MESSAGE_LIMIT:,} bytes, its fields {context.LOG_FIELDS_LIMIT:,}"),
    ("lines of `context.log` in one attempt", f"{reporter.MOST_LOG_LINES:,}; the last one says that there were more"),
    ("steps and edges of one workflow request", f"{dag.MOST_STEPS:,} and {dag.MOST_EDGES:,}"),
    ("jitter of a schedule", f"{schedules.MAX_JITTER_SECONDS:,} s"),
)

TAIL = """
A handler that returns more than fits, or what is no JSON, fails for good, after its work was done: store the file, and
return its name.
"""


def defaults_page(note: str) -> str:
    """The settings of a type and of its retry policy with their defaults, and the sizes of all that is stored."""
    return (
        HEAD.format(note=note)
        + _settings(definitions.JobDefinition, OF_A_TYPE)
        + "\n## `RetryPolicy`\n\n"
        + _settings(definitions.RetryPolicy, OF_THE_POLICY)
        + "\n## What is stored\n\n"
        + _table(("What", "At most"), OF_WHAT_IS_STORED)
        + TAIL
    )


def _settings(kind: Any, rows: tuple[tuple[str, str, str], ...]) -> str:
    defaults = {one.name: one.default for one in fields(kind) if one.default is not MISSING}
    table = [(f"`{name}`", _shown(defaults[name]), bounds, meaning) for name, bounds, meaning in rows]
    return _table(("Setting", "Default", "Limits", ""), table)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _table(head: tuple[str, ...], rows: Any) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ("---",) * len(head), *rows))

"""The mutants: a rule that is taken out, and the tests that must notice. Most are bugs that other systems have had."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """``old`` becomes ``new`` wherever it stands in ``file``; ``tests`` are arguments of pytest."""

    name: str
    file: str
    old: str
    new: str
    tests: str


SETTLE, LEASES, CLAIM, LIMITS = (f"runledger/postgres/{name}.py" for name in ("settle", "leases", "claim", "limits"))
RECOVERY, EXPRESSIONS = "runledger/postgres/recovery.py", "runledger/postgres/expressions.py"
FAILURES, GATE, CRON = (f"runledger/core/{name}.py" for name in ("failures", "gate", "cron"))
KEEPER, LINK, EXCHANGE, REPORTER = (
    f"runledger/runtime/{name}.py" for name in ("keeper", "link", "exchange", "reporter")
)
QUEUE_SQL, OPERATIONS_SQL = "sql/202611220001_queue.sql", "sql/202611220002_operations.sql"

MUTANTS = [
    Mutant(
        "a settle does not ask for the token",
        SETTLE,
        """
        .where(_LEASE.lease_token == ordered.c.lease_token)
        .limit(ONE)
        .with_for_update()
        .lateral("lease")
    )
    return (
        select(*lease.c, *(ordered.c[name] for name in columns))
        .select_from(
            ordered.join(lease, (lease.c.job_id == ordered.c.job_id) & (lease.c.lease_token == ordered.c.lease_token))
        )
""",
        """
        .limit(ONE)
        .with_for_update()
        .lateral("lease")
    )
    return (
        select(*lease.c, *(ordered.c[name] for name in columns))
        .select_from(ordered.join(lease, lease.c.job_id == ordered.c.job_id))
""",
        "tests/postgres/test_settle.py",
    ),
    Mutant(
        "a success does not ask whether the lease is live",
        SETTLE,
        'rows_of("reported", **SUCCEEDED_COLUMNS)), held.c.lease_expires_at > CLOCK)',
        'rows_of("reported", **SUCCEEDED_COLUMNS)), TRUE)',
        "tests/postgres/test_settle.py",
    ),
    Mutant(
        "a failure does not ask whether the lease is live",
        SETTLE,
        '(lease_check == constant("LIVE"), held.c.lease_expires_at > CLOCK)',
        '(lease_check == constant("LIVE"), TRUE)',
        "tests/postgres/test_settle.py",
    ),
    Mutant(
        "the clock is that of the transaction's beginning",
        EXPRESSIONS,
        "= func.clock_timestamp()",
        "= func.now()",
        "tests/postgres/test_settle.py tests/postgres/test_leases.py",
    ),
    Mutant(
        "a refund is forgotten",
        SETTLE,
        "row.attempt - cast(row.is_refunded, Integer)",
        "row.attempt",
        "tests/postgres/test_settle.py",
    ),
    Mutant(
        "a settled run is not locked",
        SETTLE,
        "lock_call(ledger, runs), *calls",
        "lock_call(ledger, []), *calls",
        "tests/postgres/test_workflow_races.py tests/postgres/test_workflow_runs.py",
    ),
    Mutant(
        "a run does not advance",
        SETTLE,
        "advance_call(ledger, of_runs)",
        "advance_call(ledger, [])",
        "tests/postgres/test_workflow_runs.py",
    ),
    Mutant(
        "a lapsed lease is renewed",
        LEASES,
        ".where(_lease.lease_expires_at > CLOCK)\n    .with_for_update(skip_locked=True)",
        ".with_for_update(skip_locked=True)",
        "tests/postgres/test_leases.py",
    ),
    Mutant(
        "an attempt past its deadline is renewed",
        LEASES,
        '    .where(_lease.lease_token != func.all(parameter("overdue_tokens", ARRAY(BigInteger))))\n',
        '    .where(func.cardinality(parameter("overdue_tokens", ARRAY(BigInteger))) >= ZERO)\n',
        "tests/postgres/test_leases.py",
    ),
    Mutant(
        "a renewal waits for locked rows",
        LEASES,
        ".with_for_update(skip_locked=True)",
        ".with_for_update()",
        "tests/postgres/test_leases.py",
    ),
    Mutant(
        "progress is stored after the lease",
        LEASES,
        "    .where(_is_live)\n    .where(_is_valid)",
        "    .where(_is_valid)",
        "tests/postgres/test_leases.py",
    ),
    Mutant(
        "claims wait for each other",
        CLAIM,
        ".with_for_update(skip_locked=True)",
        ".with_for_update()",
        "tests/postgres/test_claim.py",
    ),
    Mutant(
        "a paused type is claimed",
        CLAIM,
        ".where(~job_definitions.c.is_paused)",
        ".where(TRUE)",
        "tests/postgres/test_claim.py",
    ),
    Mutant(
        "claims of a limited type do not exclude each other",
        LIMITS,
        "try_lock_type(_open.c.job_type)",
        "TRUE",
        "tests/postgres/test_limits.py",
    ),
    Mutant(
        "a limit is looked at with the snapshot of before the lock",
        LIMITS,
        ".where(IS_READ_COMMITTED)",
        ".where(TRUE)",
        "tests/postgres/test_limits.py",
    ),
    Mutant(
        "a claim takes all that is free",
        LIMITS,
        '(func.greatest(ZERO, places) + ONE).self_group().op("/")(_TWO)',
        "func.greatest(ZERO, places)",
        "tests/postgres/test_limits.py",
    ),
    Mutant(
        "a start is forgotten while it counts",
        LIMITS,
        "job_starts.c.started_at <= ASKED_AT - _rated.c.span",
        "job_starts.c.started_at <= ASKED_AT",
        "tests/postgres/test_limits.py",
    ),
    Mutant(
        "a claim does not look at what the rate has left",
        LIMITS,
        "func.greatest(ZERO, _definition.rate_starts - _started)",
        "_definition.rate_starts",
        "tests/postgres/test_limits.py",
    ),
    Mutant(
        "the lease of a limited type does not count",
        CLAIM,
        "is_locked(_claimed.c.job_type)",
        "FALSE",
        "tests/postgres/test_limits.py",
    ),
    Mutant(
        "the payload is decoded while it is fetched",
        CLAIM,
        "as_text(job_queue.c.payload)",
        "job_queue.c.payload",
        "tests/runtime/test_worker_tick.py",
    ),
    Mutant(
        "a claim does not count the attempt",
        CLAIM,
        "_claimed.c.attempt + ONE",
        "func.greatest(_claimed.c.attempt, ONE)",
        "tests/postgres/test_claim.py tests/postgres/test_settle.py",
    ),
    Mutant(
        "crashes of earlier runs count",
        RECOVERY,
        "    .where(job_attempts.c.run_number == _lease.run_number)\n",
        "",
        "tests/postgres/test_recovery.py",
    ),
    Mutant(
        "the reaper waits for who is settling",
        RECOVERY,
        "skip_locked=True, of=(job_leases, job_queue)",
        "of=job_leases",
        "tests/postgres/test_recovery.py",
    ),
    Mutant(
        "the living are settled with the dead",
        RECOVERY,
        '_lost.where(_lease.worker_id == parameter("worker_id", Text))',
        '_lost.where(_lease.worker_id >= func.substr(parameter("worker_id", Text), 1, 1))',
        "tests/postgres/test_recovery.py",
    ),
    Mutant(
        "one attempt too many",
        FAILURES,
        "if attempt >= max_attempts:",
        "if attempt > max_attempts:",
        "tests/core/test_decide.py",
    ),
    Mutant(
        "one crash too many",
        FAILURES,
        "crashes >= crash_budget",
        "crashes > crash_budget",
        "tests/core/test_decide.py",
    ),
    Mutant(
        "infinity passes the gate",
        GATE,
        "float.__sub__(value, value) != 0.0",
        "value != value",
        "tests/core/test_gate_json.py",
    ),
    Mutant(
        "NUL passes the gate",
        GATE,
        '    if "\\0" in plain:\n        raise _Refused',
        '    if "\\1" in plain:\n        raise _Refused',
        "tests/core/test_gate_json.py",
    ),
    Mutant(
        "NUL stays in the text of an error",
        GATE,
        'plain = plain.replace("\\0", "")',
        "plain = plain[:]",
        "tests/core/test_gate_text.py",
    ),
    Mutant(
        "a slot may have two jobs",
        OPERATIONS_SQL,
        "CREATE UNIQUE INDEX uq_job_queue_schedule_slot",
        "CREATE INDEX uq_job_queue_schedule_slot",
        "tests/postgres/test_firing.py",
    ),
    Mutant(
        "a key belongs to no organization",
        QUEUE_SQL,
        "ON job_queue (job_type, organization_id, idempotency_key)",
        "ON job_queue (job_type, idempotency_key)",
        "tests/postgres/test_enqueue_keyed.py",
    ),
    Mutant(
        "a reload does not look whether the app can be imported",
        "runledger/runtime/fleet.py",
        "        if status != 0:\n            how",
        "        if False:\n            how",
        "tests/runtime/test_releases.py",
    ),
    Mutant(
        "plans are kept while tables grow",
        LINK,
        "if self._is_slow and is_old and",
        "if False and",
        "tests/runtime/test_growing_tables.py",
    ),
    Mutant(
        "a statement is prepared on a connection that a pooler lends",
        "runledger/postgres/connection.py",
        "statement.is_prepared and not self._is_borrowed",
        "statement.is_prepared",
        "tests/runtime/test_pooler.py",
    ),
    Mutant(
        "a keeper that ends before the workers is not replaced",
        "runledger/runtime/supervisor.py",
        "            self._keep_a_keeper()",
        "            pass",
        "tests/runtime/test_signs_of_life.py",
    ),
    Mutant(
        "the keeper vouches for a stopped process",
        KEEPER,
        " if not _is_stopped(slot.pid)]",
        "]",
        "tests/runtime/test_keeper.py",
    ),
    Mutant(
        "the names of workers are used again",
        KEEPER,
        'return f"{host_id}.{slot_index}.{incarnation}"',
        'return f"{host_id}.{slot_index}"',
        "tests/runtime/test_keeper.py",
    ),
    Mutant(
        "an outcome is dropped when the answer is lost",
        EXCHANGE,
        "                self._outbox.put_back(waiting)\n                raise",
        "                raise",
        "tests/runtime/test_worker_settling.py",
    ),
    Mutant(
        "a connection is used on the other side of a fork",
        LINK,
        "        if self._pid != os.getpid():\n            raise",
        "        if False:\n            raise",
        "tests/runtime/test_link_and_fork.py",
    ),
    Mutant(
        "no answer is waited for without end",
        "runledger/database/bounded.py",
        "if not ready and time.monotonic() > deadline:",
        "if False:",
        "tests/runtime/test_round_trips.py",
    ),
    Mutant(
        "a pool is used on the other side of a fork",
        "runledger/database/database.py",
        "if self._pool is None or self._pool_pid != os.getpid():",
        "if self._pool is None:",
        "tests/runtime/test_link_and_fork.py",
    ),
    Mutant(
        "a demoted primary is an error of the statement",
        "runledger/postgres/violations.py",
        '    "25006": (errors.DatabaseUnavailable,',
        '    "25006": (errors.QueryFailed,',
        "tests/postgres/test_violations.py",
    ),
    Mutant(
        "a handler's own exit is a success",
        "runledger/runtime/fleet.py",
        "is_clean = is_clean and slot.state is SlotState.LEAVING",
        "is_clean = bool(is_clean)",
        "tests/runtime/test_killed_processes.py",
    ),
    Mutant(
        "an unavailable database is a bad configuration",
        "runledger/cli/exits.py",
        "errors.UnavailableError: ExitCode.UNAVAILABLE",
        "errors.UnavailableError: ExitCode.CONFIGURATION",
        "tests/hostile/test_command_line.py -k D04",
    ),
    Mutant(
        "a database is named with its password",
        "runledger/database/settings.py",
        '    place = "local socket"',
        '    return url\n    place = "local socket"',
        "tests/hostile/test_expressions.py",
    ),
    Mutant(
        "what a handler said is lost when it cannot be written at once",
        REPORTER,
        "                self._logs[:0] = logs\n",
        "",
        "tests/runtime/test_reporter.py",
    ),
    Mutant(
        "what could not be written of one attempt is written for the next",
        REPORTER,
        "            self._logs = []\n            self._log_lines",
        "            self._log_lines",
        "tests/runtime/test_reporter.py",
    ),
    Mutant(
        "statements are put together",
        "runledger/postgres/locks.py",
        "def try_lock_reaper(",
        'def _built(driver, name):\n    driver.execute(f"SELECT {name}")\n\n\ndef try_lock_reaper(',
        "tests/architecture/test_security.py",
    ),
]

"""Why a job waits, who runs it, or why it ended: each gate is once the reason."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from postgres.observing import Connection

from runledger.core.errors import JobNotFound
from runledger.core.explanations import Gate, GateState, JobExplanation
from runledger.core.jobs import Scope
from runledger.core.states import JobStatus, Outcome
from runledger.core.workers import WorkerAnnouncement, WorkerHost, WorkerState
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.postgres.definitions import set_definition_enabled, set_definition_paused
from runledger.postgres.explain import explain_job
from runledger.postgres.operations import cancel_job
from runledger.postgres.settle import settle_jobs
from runledger.postgres.workers import announce_workers
from runledger.postgres.workflow_runs import enqueue_workflow_run
from runledger.testing.factories import (
    TEST_TYPE,
    a_definition,
    a_job,
    a_leased_job,
    age_lease,
    claim_one,
    dead_lettered,
    expired,
    failed,
    make_due,
    succeeded,
)

_JUST = re.compile(r"\b[0-9] s ago")
OPEN, SHUT, NOTE, UNKNOWN = GateState.OPEN, GateState.SHUT, GateState.NOTE, GateState.UNKNOWN


def a_worker(
    connection: Connection,
    *job_types: str,
    state: WorkerState = WorkerState.IDLE,
    queues: tuple[str, ...] | None = None,
    worker_id: str = "host-a.0.1",
) -> None:
    """A live worker of its own host serves these types."""
    types = json.dumps(list(job_types or (TEST_TYPE,)))
    host = WorkerHost(worker_id, "box", "app:catalog", "0", queues)
    announce_workers(
        connection, host, [WorkerAnnouncement(worker_id, 1, state, types, 1.0, None, 0, None)], ttl_seconds=60
    )


def lose_workers(connection: Connection) -> None:
    connection.execute("UPDATE runledger.job_workers SET expires_at = clock_timestamp()")


def explained(connection: Connection, job: object) -> JobExplanation:
    """The explanation; moments that have just been read as none ago, however slow the machine."""
    found = explain_job(connection, getattr(job, "job_id", job), scope=Scope.any())
    gates = tuple(replace(one, text=_JUST.sub("0 s ago", one.text)) for one in found.gates)
    return replace(found, verdict=_JUST.sub("0 s ago", found.verdict), gates=gates)


def shut(found: JobExplanation) -> list[str]:
    return [gate.name for gate in found.gates if gate.state is SHUT]


def gate(found: JobExplanation, name: str) -> Gate:
    return next(one for one in found.gates if one.name == name)


def test_nothing_holds_up_a_job_that_an_idle_worker_serves(connection: Connection) -> None:
    a_worker(connection)

    found = explained(connection, a_job(connection))

    assert shut(found) == []
    assert found.verdict == "Nothing holds it up: an idle worker takes it with its next claim."
    assert (found.estimated_start_seconds, found.ahead, found.advice) == (0.0, 0, ())


def test_a_job_for_later_waits_for_its_time(connection: Connection) -> None:
    a_worker(connection)

    found = explained(connection, a_job(connection, delay=3_600))

    assert shut(found) == ["due"]
    assert found.verdict == "It waits: it is not due for another 60 min."
    assert (found.estimated_start_seconds, gate(found, "line").state) == (None, UNKNOWN)


def test_a_retry_says_how_the_last_attempt_ended(connection: Connection) -> None:
    a_worker(connection)
    job = a_leased_job(connection)
    settle_jobs(connection, [failed(job, code="mail.busy", retry_seconds=600)])

    found = explained(connection, job)

    assert found.verdict == (
        "It waits: attempt 1 of 3 ended as RETRYABLE with mail.busy, and the next one is not due for another 10 min."
    )


def test_a_due_job_that_no_keeper_promotes(connection: Connection) -> None:
    a_worker(connection)
    job = a_job(connection, delay=3_600)
    connection.execute("UPDATE runledger.job_scheduled SET next_run_at = clock_timestamp() - interval '1 minute'")

    found = explained(connection, job)

    assert shut(found) == ["promoted"]
    assert "no keeper makes it ready" in found.verdict


def test_an_expired_job_waits_to_be_cancelled(connection: Connection) -> None:
    a_worker(connection)
    job = a_job(connection, expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert gate(explained(connection, job), "expiry").text == "it expires in 60 min"
    connection.execute("UPDATE runledger.job_queue SET expires_at = clock_timestamp() - interval '10 seconds'")

    found = explained(connection, job)

    assert shut(found) == ["expiry"]
    assert found.advice == (f"runledger job cancel {job.job_id}",)


def test_a_type_without_a_definition_is_claimed_by_nobody(connection: Connection) -> None:
    a_worker(connection)
    job = a_job(connection)
    connection.execute("DELETE FROM runledger.job_definitions")

    found = explained(connection, job)

    assert "definition" in shut(found)
    assert "runledger definition sync --app MODULE:ATTR" in found.advice


def test_a_paused_type_names_who_paused_it_and_why(connection: Connection) -> None:
    a_worker(connection)
    job = a_job(connection)
    set_definition_paused(connection, TEST_TYPE, is_paused=True, actor="ada", reason="mail server down")

    found = explained(connection, job)

    assert shut(found) == ["pause"]
    assert "is paused by ada since 0 s ago (mail server down)" in found.verdict
    assert found.advice == (f"runledger definition resume {TEST_TYPE}",)


def test_a_disabled_type_is_a_note_because_its_jobs_still_run(connection: Connection) -> None:
    a_worker(connection)
    job = a_job(connection)
    set_definition_enabled(connection, TEST_TYPE, is_enabled=False, actor="ada", reason="replaced")

    found = explained(connection, job)

    assert shut(found) == []
    assert gate(found, "enabled").state is NOTE
    assert "by ada since 0 s ago (replaced)" in gate(found, "enabled").text


def test_no_worker_at_all(connection: Connection) -> None:
    found = explained(connection, a_job(connection))

    assert shut(found) == ["worker"]
    assert found.verdict == "It waits: no worker is live at all."
    assert found.advice == ("runledger worker --app MODULE:ATTR", "runledger workers")


def test_workers_of_other_types_only(connection: Connection) -> None:
    a_worker(connection, "other.type")

    assert explained(connection, a_job(connection)).verdict == (
        "It waits: no live worker serves its type; live workers of other types: 1."
    )


def test_workers_of_other_queues_only(connection: Connection) -> None:
    a_definition(connection, "mail.bulk", queue="bulk")
    a_worker(connection, "mail.bulk", queues=("default",))

    found = explained(connection, a_job(connection, "mail.bulk"))

    assert found.verdict == "It waits: live workers know its type, and none serves its queue 'bulk'."
    assert found.advice[0] == "runledger worker --app MODULE:ATTR --queues bulk"


def test_a_worker_that_was_lost_is_named_as_lost(connection: Connection) -> None:
    a_worker(connection)
    lose_workers(connection)

    assert "lost workers that served it: 1" in explained(connection, a_job(connection)).verdict


def test_quiet_workers_claim_nothing(connection: Connection) -> None:
    a_worker(connection, state=WorkerState.QUIET)

    found = explained(connection, a_job(connection))

    assert shut(found) == ["worker"]
    assert "all 1 live workers of its type are quiet" in found.verdict


def test_a_job_behind_others_tells_place_and_start_from_recent_ends(connection: Connection) -> None:
    a_worker(connection, state=WorkerState.BUSY)
    for _ in range(4):
        settle_jobs(connection, [succeeded(a_leased_job(connection, worker_id="host-a.0.1"))])
    settle_jobs(connection, [succeeded(a_leased_job(connection, worker_id="of another type"))])
    first, second = a_job(connection), a_job(connection)
    a_job(connection, "other.type", priority=9)

    found = explained(connection, second)

    assert (found.ahead, found.estimated_start_seconds) == (1, 30.0)
    assert found.verdict == "It waits its turn: jobs ahead of it: 1, and it should begin in about 30 s."
    assert "attempts that the workers serving it ended in the last 120 s: 4" in found.estimated_from
    assert explained(connection, first).ahead == 0
    assert "first in line" in explained(connection, first).verdict


def test_a_start_is_unknown_when_nothing_ended_lately(connection: Connection) -> None:
    a_worker(connection, state=WorkerState.BUSY)
    a_job(connection)

    found = explained(connection, a_job(connection))

    assert found.estimated_start_seconds is None
    assert "nobody can say when it begins" in found.verdict


def test_jobs_of_other_types_that_the_same_workers_take_first_are_ahead(connection: Connection) -> None:
    a_worker(connection, TEST_TYPE, "urgent", state=WorkerState.BUSY)
    job = a_job(connection)
    a_job(connection, "urgent", priority=9)
    assert explained(connection, job).ahead == 1

    set_definition_paused(connection, "urgent", is_paused=True)

    assert explained(connection, job).ahead == 0


def test_several_reasons_are_all_named(connection: Connection) -> None:
    job = a_job(connection, delay=3_600)
    set_definition_paused(connection, TEST_TYPE, is_paused=True)

    assert shut(explained(connection, job)) == ["due", "pause", "worker"]


def test_jobs_that_wait_for_their_limit_are_not_ahead(connection: Connection) -> None:
    a_definition(connection, "limited", max_running=1)
    a_definition(connection, "free")
    for _ in range(3):
        a_job(connection, "limited")
    a_worker(connection, "limited", "free")
    job = a_job(connection, "free")
    assert explained(connection, job).ahead == 3

    with connection.transaction():
        claim_one(connection, "limited")

    assert explained(connection, job).ahead == 0


def test_a_crash_budget_that_one_more_crash_spends_is_a_note(connection: Connection) -> None:
    a_worker(connection)
    a_definition(connection, crash_budget=2)
    job = a_leased_job(connection)
    settle_jobs(connection, [failed(job, outcome=Outcome.PANICKED, retry_seconds=0)])

    found = explained(connection, job)

    assert gate(found, "crash budget") == Gate(
        "crash budget", NOTE, "1 of 2 crashes of its budget are used: the next one ends it"
    )


def test_a_running_job_names_its_worker_lease_and_deadline(connection: Connection) -> None:
    a_worker(connection, worker_id="host-a.0.1", state=WorkerState.BUSY)
    job = a_leased_job(connection, worker_id="host-a.0.1")

    found = explained(connection, job)

    assert (found.status, shut(found), found.advice) == (JobStatus.LEASED, [], ())
    assert found.verdict == "It runs on worker host-a.0.1, which claimed it 0 s ago."
    assert gate(found, "deadline").text == "its timeout of 300 s ends in 5 min"


def test_a_lapsed_lease_that_nobody_has_reaped(connection: Connection) -> None:
    job = a_leased_job(connection)
    age_lease(connection, job, seconds=100)

    found = explained(connection, job)

    assert shut(found) == ["lease"]
    assert " ago and no reaper has recovered it yet" in found.verdict
    assert found.advice[0] == "runledger reaper"


def test_a_running_job_past_its_timeout(connection: Connection) -> None:
    a_worker(connection, worker_id="worker-1", state=WorkerState.BUSY)
    job = a_leased_job(connection, lease_ttl_seconds=1_000)
    age_lease(connection, job, seconds=400)

    found = explained(connection, job)

    assert shut(found) == ["deadline"]
    assert found.advice == (f"runledger job cancel {job.job_id}",)


def test_a_running_job_of_a_worker_that_is_unknown_or_lost(connection: Connection) -> None:
    job = a_leased_job(connection, worker_id="host-a.0.1")
    assert gate(explained(connection, job), "worker").state is UNKNOWN
    a_worker(connection, worker_id="host-a.0.1")
    assert gate(explained(connection, job), "worker").state is OPEN

    lose_workers(connection)

    assert gate(explained(connection, job), "worker").state is NOTE


def test_a_job_that_succeeded(connection: Connection) -> None:
    job = a_leased_job(connection)
    settle_jobs(connection, [succeeded(job)])

    assert explained(connection, job).verdict == "It succeeded 0 s ago in attempt 1 of 3."


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("FAILURE_KIND_NON_RETRYABLE", "its failure was final"),
        ("ATTEMPTS_EXHAUSTED", "its attempts are exhausted"),
        ("CRASH_BUDGET_SPENT", "its crash budget is spent"),
        ("OF_ANOTHER_RELEASE", "OF_ANOTHER_RELEASE"),
    ],
)
def test_a_dead_letter_says_why_it_is_one_and_how_it_ended(connection: Connection, reason: str, words: str) -> None:
    job = a_leased_job(connection)
    settle_jobs(connection, [dead_lettered(job, code="mail.no_recipient", message="no address", reason=reason)])

    found = explained(connection, job)

    assert found.verdict == f"It was dead-lettered 0 s ago in attempt 1 of 3: {words}."
    assert gate(found, "last attempt").text == "it ended as TERMINAL on worker-1: mail.no_recipient: no address"
    assert found.advice == (f"runledger job attempts {job.job_id} --traceback", f"runledger job requeue {job.job_id}")


def test_a_cancelled_job_names_who_cancelled_it_and_why(connection: Connection) -> None:
    job = a_job(connection)
    cancel_job(connection, job.job_id, scope=Scope.any(), reason="wrong address", actor="cli:ada")

    found = explained(connection, job)

    assert found.verdict == "It was cancelled 0 s ago: by cli:ada, because: wrong address."
    assert found.advice == (f"runledger job requeue {job.job_id}",)


def test_a_cancelled_job_whose_worker_may_still_run_cannot_be_requeued_yet(connection: Connection) -> None:
    job = a_leased_job(connection)
    cancel_job(connection, job.job_id, scope=Scope.any())

    found = explained(connection, job)

    assert "by somebody who gave no name, without a reason" in found.verdict
    quiesced = gate(found, "quiesced").text
    assert quiesced.startswith("its last attempt may not have ended; it can be requeued once it has, at the latest in ")
    assert found.advice == ("runledger workers",)


def test_a_job_that_expired(connection: Connection) -> None:
    job = a_job(connection, expires_at=datetime.now(UTC) + timedelta(hours=1))
    settle_jobs(connection, [expired(claim_one(connection))])

    assert explained(connection, job).verdict == "It was cancelled 0 s ago: it expired before a worker began it."


def test_a_job_of_a_run_names_its_step_and_that_the_run_waits_for_it(connection: Connection) -> None:
    a_definition(connection)
    with connection.transaction():
        run = enqueue_workflow_run(connection, WorkflowDagBuilder("test").job("a", TEST_TYPE).build())
    [(job_id,)] = connection.execute("SELECT id FROM runledger.job_queue").fetchall()
    words = f"it is step 'a' of run {run.run_id}"

    assert gate(explain_job(connection, job_id, scope=Scope.any()), "workflow").text == (
        f"{words}, which cannot end before it"
    )
    with connection.transaction():
        settle_jobs(connection, [succeeded(claim_one(connection))])
    assert gate(explain_job(connection, job_id, scope=Scope.any()), "workflow").text == words


def test_a_job_of_another_organization_does_not_exist(connection: Connection) -> None:
    job = a_job(connection, organization_id=uuid4())

    with pytest.raises(JobNotFound):
        explain_job(connection, job.job_id, scope=Scope.organization(uuid4()))
    with pytest.raises(JobNotFound):
        explain_job(connection, "nonsense", scope=Scope.any())
    assert explained(connection, job).job_id == job.job_id


def test_a_promoted_retry_counts_as_ready(connection: Connection) -> None:
    a_worker(connection)
    job = a_leased_job(connection)
    settle_jobs(connection, [failed(job)])
    make_due(connection, job)

    assert shut(explained(connection, job)) == []

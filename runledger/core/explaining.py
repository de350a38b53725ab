"""From the facts about a job to its explanation. Pure: the same facts always lead to the same words."""

import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta

from runledger.core.explanations import RECENT_SECONDS, Gate, GateState, JobExplanation, JobFacts, duration_text
from runledger.core.failures import DeadLetterReason
from runledger.core.states import JobStage, JobStatus

OPEN, SHUT, NOTE, UNKNOWN = GateState.OPEN, GateState.SHUT, GateState.NOTE, GateState.UNKNOWN

_START_A_WORKER = "runledger worker --app MODULE:ATTR"
_DEAD_LETTER_REASONS = {
    DeadLetterReason.FAILURE_KIND_NON_RETRYABLE: "its failure was final",
    DeadLetterReason.CRASH_BUDGET_SPENT: "its crash budget is spent",
    DeadLetterReason.ATTEMPTS_EXHAUSTED: "its attempts are exhausted",
}
_NEXT = timedelta(seconds=5)
"""How long a keeper may reasonably take to promote a job that has become due."""


def explain(facts: JobFacts) -> JobExplanation:
    """What holds the job up, who runs it, or why it ended."""
    if facts.status is JobStatus.PENDING:
        return _waiting(facts)
    if facts.status is JobStatus.LEASED:
        return _running(facts)
    return _ended(facts)


def _waiting(facts: JobFacts) -> JobExplanation:
    why = (_expiry, _due, _promoted, _definition, _pause, _limit, _rate, _worker)
    shut = [gate(facts) for gate in why]
    holding = [gate for gate in shut if gate.state is SHUT]
    line = _line(facts, is_held=bool(holding))
    gates = [*shut, _enabled(facts), _crash_budget(facts), line]
    if holding:
        verdict = f"It waits: {'; and '.join(gate.text for gate in holding)}."
    elif line.state is SHUT:
        verdict = f"It waits its turn: {line.text}."
    else:
        verdict = f"Nothing holds it up: {line.text}."
    seconds = None if holding else _estimate(facts)
    how = (
        f"jobs ahead of it: {facts.ahead:,}; "
        f"attempts that the workers serving it ended in the last {RECENT_SECONDS} s: {facts.recent_ends:,}"
    )
    return _explanation(facts, verdict, gates, _advice_for_waiting(facts, holding, line), facts.ahead, seconds, how)


def _expiry(facts: JobFacts) -> Gate:
    if facts.expires_at is None:
        return Gate("expiry", OPEN, "it does not expire")
    if facts.expires_at <= facts.now:
        ago = _ago(facts, facts.expires_at)
        return Gate("expiry", SHUT, f"it expired {ago} ago, and the next claim cancels it instead of running it")
    return Gate("expiry", OPEN, f"it expires in {_until(facts, facts.expires_at)}")


def _due(facts: JobFacts) -> Gate:
    assert facts.next_run_at is not None  # a pending job has its time in ready or scheduled
    if facts.next_run_at <= facts.now:
        return Gate("due", OPEN, f"it has been due for {_ago(facts, facts.next_run_at)}")
    why = "it is not due"
    if facts.last_outcome is not None and facts.attempt > 0:
        code = f" with {facts.last_error_code}" if facts.last_error_code else ""
        ended = f"attempt {facts.attempt} of {facts.max_attempts} ended as {facts.last_outcome}{code}"
        why = f"{ended}, and the next one is not due"
    return Gate("due", SHUT, f"{why} for another {_until(facts, facts.next_run_at)}")


def _promoted(facts: JobFacts) -> Gate:
    if facts.stage is not JobStage.SCHEDULED or facts.next_run_at is None or facts.next_run_at > facts.now:
        return Gate("promoted", OPEN, "it is not left behind among the jobs that wait for a time")
    late = facts.now - facts.next_run_at
    who = "a keeper is about to make it ready" if late < _NEXT and facts.live_workers else "no keeper makes it ready"
    return Gate("promoted", SHUT, f"its time has come and {who}")


def _definition(facts: JobFacts) -> Gate:
    if facts.has_definition:
        return Gate("definition", OPEN, f"job type {facts.job_type!r} is defined, queue {facts.queue!r}")
    return Gate("definition", SHUT, f"job type {facts.job_type!r} has no definition, so nobody claims it")


def _pause(facts: JobFacts) -> Gate:
    if not facts.is_paused:
        return Gate("pause", OPEN, "its job type is not paused")
    return Gate("pause", SHUT, f"job type {facts.job_type!r} is paused{_by_whom(facts)}")


def _limit(facts: JobFacts) -> Gate:
    if facts.max_running is None:
        return Gate("limit", OPEN, "its job type has no limit")
    used = f"{facts.running_limited:,} of at most {facts.max_running:,} jobs of its type run"
    return Gate("limit", OPEN if facts.running_limited < facts.max_running else SHUT, used)


def _rate(facts: JobFacts) -> Gate:
    if facts.rate_starts is None:
        return Gate("rate", OPEN, "its job type has no rate limit")
    used = f"{facts.recent_starts:,} of at most {facts.rate_starts:,} jobs of its type"
    state = OPEN if facts.recent_starts < facts.rate_starts else SHUT
    return Gate("rate", state, f"{used} started in the last {facts.rate_seconds:,} s")


def _enabled(facts: JobFacts) -> Gate:
    if facts.is_enabled is not False:
        return Gate("enabled", OPEN, "its job type is enabled")
    text = f"job type {facts.job_type!r} is disabled{_by_whom(facts)}: new jobs are refused, this one still runs"
    return Gate("enabled", NOTE, text)


def _by_whom(facts: JobFacts) -> str:
    who = f" by {facts.changed_by}" if facts.changed_by else ""
    since = f" since {_ago(facts, facts.changed_at)} ago" if facts.changed_at else ""
    return f"{who}{since}" + (f" ({facts.change_reason})" if facts.change_reason else "")


def _worker(facts: JobFacts) -> Gate:
    serving, quiet = facts.serving_workers, facts.quiet_workers
    if serving > quiet:
        return Gate("worker", OPEN, f"live workers of its type: {serving - quiet:,}")
    if serving:
        return Gate("worker", SHUT, f"all {serving:,} live workers of its type are quiet")
    if facts.other_queue_workers:
        text = f"live workers know its type, and none serves its queue {facts.queue!r}"
    elif facts.live_workers:
        text = f"no live worker serves its type; live workers of other types: {facts.live_workers:,}"
    else:
        text = "no worker is live at all"
    lost = f"; lost workers that served it: {facts.lost_workers:,}" if facts.lost_workers else ""
    return Gate("worker", SHUT, text + lost)


def _crash_budget(facts: JobFacts) -> Gate:
    budget = facts.crash_budget
    if budget is None or not facts.crashes:
        return Gate("crash budget", OPEN, "it has not crashed in this run")
    used = f"{facts.crashes} of {budget} crashes of its budget are used"
    return Gate("crash budget", NOTE, f"{used}: the next one ends it" if facts.crashes + 1 >= budget else used)


def _line(facts: JobFacts, *, is_held: bool) -> Gate:
    if is_held:
        return Gate("line", UNKNOWN, "its place in line counts once nothing else holds it up")
    if facts.ahead < facts.idle_workers or (facts.ahead == 0 and facts.idle_workers):
        return Gate("line", OPEN, "an idle worker takes it with its next claim")
    seconds = _estimate(facts)
    when = "nobody can say when it begins" if seconds is None else f"it should begin in about {duration_text(seconds)}"
    if facts.ahead == 0:
        return Gate("line", SHUT, "it is the first in line and all workers that serve it are busy")
    return Gate("line", SHUT, f"jobs ahead of it: {facts.ahead:,}, and {when}")


def _estimate(facts: JobFacts) -> float | None:
    if facts.ahead < facts.idle_workers:
        return 0.0
    return facts.ahead / (facts.recent_ends / RECENT_SECONDS) if facts.recent_ends else None


def _advice_for_waiting(facts: JobFacts, holding: Sequence[Gate], line: Gate) -> list[str]:
    job_type = shlex.quote(facts.job_type)
    queue = "" if facts.queue in (None, "default") else f" --queues {shlex.quote(facts.queue or '')}"
    commands = {
        "expiry": f"runledger job cancel {facts.job_id}",
        "due": _look_back(facts),
        "promoted": _START_A_WORKER,
        "definition": "runledger definition sync --app MODULE:ATTR",
        "pause": f"runledger definition resume {job_type}",
        "limit": f"runledger job list --type {job_type} --stage running",
        "rate": "runledger definition list",
        "worker": f"{_START_A_WORKER}{queue}",
    }
    advice = [commands[gate.name] for gate in holding]
    if any(gate.name == "worker" for gate in holding):
        advice.append("runledger workers")
    if line.state is SHUT:
        advice.append("runledger stats")
    return list(dict.fromkeys(advice))


def _running(facts: JobFacts) -> JobExplanation:
    assert facts.leased_at is not None
    assert facts.lease_expires_at is not None
    lease, holder, deadline = _lease(facts), _holder(facts), _deadline(facts)
    since = _ago(facts, facts.leased_at)
    verdict = f"It runs on worker {facts.worker_id}, which claimed it {since} ago."
    advice: list[str] = []
    if lease.state is SHUT:
        verdict = f"Its worker {facts.worker_id} is gone: {lease.text}."
        advice = ["runledger reaper"]
    elif deadline.state is SHUT:
        verdict = f"It runs on worker {facts.worker_id}: {deadline.text}."
        advice = [f"runledger job cancel {facts.job_id}"]
    if holder.state is not OPEN:
        advice.append("runledger workers")
    return _explanation(facts, verdict, [lease, holder, deadline, _crash_budget(facts)], advice)


def _lease(facts: JobFacts) -> Gate:
    assert facts.lease_expires_at is not None
    if facts.lease_expires_at <= facts.now:
        ago = _ago(facts, facts.lease_expires_at)
        return Gate("lease", SHUT, f"its lease lapsed {ago} ago and no reaper has recovered it yet")
    renewed = f", renewed {_ago(facts, facts.renewed_at)} ago" if facts.renewed_at else ""
    return Gate("lease", OPEN, f"its lease lasts {_until(facts, facts.lease_expires_at)} more{renewed}")


def _holder(facts: JobFacts) -> Gate:
    if facts.is_worker_live is None:
        return Gate("worker", UNKNOWN, f"worker {facts.worker_id} is not registered: it has just begun, or ended")
    if facts.is_worker_live:
        return Gate("worker", OPEN, f"worker {facts.worker_id} is live")
    return Gate("worker", NOTE, f"the host of worker {facts.worker_id} has not been heard of for a lease time")


def _deadline(facts: JobFacts) -> Gate:
    assert facts.leased_at is not None
    deadline = facts.leased_at + timedelta(seconds=facts.timeout_seconds)
    if deadline > facts.now:
        return Gate("deadline", OPEN, f"its timeout of {facts.timeout_seconds} s ends in {_until(facts, deadline)}")
    ago = _ago(facts, deadline)
    text = f"its timeout of {facts.timeout_seconds} s ended {ago} ago, if it began when it was claimed"
    return Gate("deadline", SHUT, text)


def _ended(facts: JobFacts) -> JobExplanation:
    assert facts.finished_at is not None
    ago = _ago(facts, facts.finished_at)
    of = f"attempt {facts.attempt} of {facts.max_attempts}"
    if facts.status is JobStatus.SUCCEEDED:
        verdict, gates, advice = f"It succeeded {ago} ago in {of}.", [Gate("end", OPEN, "it succeeded")], []
    elif facts.status is JobStatus.DEAD_LETTERED:
        reason = _DEAD_LETTER_REASONS.get(facts.status_reason or "", facts.status_reason)  # type: ignore[call-overload]  # a reason of another release is shown as it is
        verdict = f"It was dead-lettered {ago} ago in {of}: {reason}."
        gates = [Gate("end", SHUT, str(reason)), _last_attempt(facts), _crash_budget(facts)]
        advice = [_look_back(facts), *_again(facts)]
    else:
        gates, advice = [_cancellation(facts)], _again(facts)
        if facts.quiesces_at is not None and facts.quiesces_at > facts.now:
            until = _until(facts, facts.quiesces_at)
            text = f"its last attempt may not have ended; it can be requeued once it has, at the latest in {until}"
            gates.append(Gate("quiesced", NOTE, text))
            advice = ["runledger workers"]
        verdict = f"It was cancelled {ago} ago: {gates[0].text}."
    return _explanation(facts, verdict, gates, advice)


def _last_attempt(facts: JobFacts) -> Gate:
    said = f": {facts.last_error_code}: {facts.last_error_message}" if facts.last_error_code else ""
    killed = f" (signal {facts.last_exit_signal})" if facts.last_exit_signal else ""
    by = f" on {facts.last_worker_id}" if facts.last_worker_id else ""
    return Gate("last attempt", SHUT, f"it ended as {facts.last_outcome}{killed}{by}{said}")


def _cancellation(facts: JobFacts) -> Gate:
    if facts.status_reason == "EXPIRED":
        return Gate("end", SHUT, "it expired before a worker began it")
    who = facts.canceled_by or "somebody who gave no name"
    why = facts.cancel_reason or (None if facts.status_reason == "CANCELED" else facts.status_reason)
    return Gate("end", SHUT, f"by {who}, {f'because: {why}' if why else 'without a reason'}")


def _look_back(facts: JobFacts) -> str:
    """The command that shows why the last attempt failed, or what happened without one."""
    if facts.last_outcome is None or facts.attempt == 0:
        return f"runledger job events {facts.job_id}"
    return f"runledger job attempts {facts.job_id} --traceback"


def _again(facts: JobFacts) -> list[str]:
    """A job of a run is not requeued by itself."""
    if facts.workflow_run_id is not None:
        return [f"runledger workflow show {facts.workflow_run_id}"]
    return [f"runledger job requeue {facts.job_id}"]


def _explanation(
    facts: JobFacts,
    verdict: str,
    gates: Sequence[Gate],
    advice: Sequence[str],
    ahead: int | None = None,
    seconds: float | None = None,
    how: str = "",
) -> JobExplanation:
    return JobExplanation(
        job_id=facts.job_id,
        job_type=facts.job_type,
        status=facts.status,
        stage=facts.stage,
        run_number=facts.run_number,
        attempt=facts.attempt,
        max_attempts=facts.max_attempts,
        verdict=verdict,
        gates=(*gates, *_step(facts)),
        advice=tuple(advice),
        ahead=ahead,
        estimated_start_seconds=seconds,
        estimated_from=how,
    )


def _step(facts: JobFacts) -> list[Gate]:
    """A run has no end before the jobs of all its released steps have one."""
    if facts.workflow_run_id is None:
        return []
    step = f"it is step {facts.step_key!r} of run {facts.workflow_run_id}"
    return [Gate("workflow", NOTE, step if facts.status.is_final else f"{step}, which cannot end before it")]


def _ago(facts: JobFacts, moment: datetime) -> str:
    return duration_text((facts.now - moment).total_seconds())


def _until(facts: JobFacts, moment: datetime) -> str:
    return duration_text((moment - facts.now).total_seconds())

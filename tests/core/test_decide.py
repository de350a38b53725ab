"""What a failed attempt leads to is one pure decision."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runledger.core.definitions import RetryPolicy
from runledger.core.failures import DeadLetter, DeadLetterReason, Failure, Retry, decide
from runledger.core.states import FAILED_OUTCOMES, Outcome

OUTCOMES = st.sampled_from(sorted(FAILED_OUTCOMES))
ATTEMPTS = st.integers(1, 1_000)
CHANCES = st.floats(0, 1, exclude_max=True)
POLICIES = st.builds(
    RetryPolicy,
    base_seconds=st.floats(0.001, 86_400),
    factor=st.floats(1, 10),
    cap_seconds=st.floats(0.001, 2_592_000),
    jitter=st.booleans(),
    overrides=st.dictionaries(st.sampled_from(["a.b", "c.d"]), st.floats(0.001, 86_400)),
)
STEADY = RetryPolicy(jitter=False)


def failure(outcome: Outcome = Outcome.RETRYABLE, code: str = "a.b", retry_after: float | None = None) -> Failure:
    return Failure(outcome, code, "message", None, retry_after)


def decision(failed: Failure, *, attempt=1, max_attempts=3, crashes=0, policy=STEADY, chance=0.5):
    return decide(
        failed,
        attempt=attempt,
        max_attempts=max_attempts,
        crashes=crashes,
        crash_budget=3,
        policy=policy,
        chance=chance,
    )


@given(OUTCOMES, ATTEMPTS, ATTEMPTS, st.integers(0, 10), POLICIES, CHANCES)
def test_a_job_retries_exactly_while_it_may(outcome, attempt, max_attempts, crashes, policy, chance):
    decided = decision(
        failure(outcome), attempt=attempt, max_attempts=max_attempts, crashes=crashes, policy=policy, chance=chance
    )
    is_spent = outcome is Outcome.PANICKED and crashes >= 3
    may_retry = outcome.is_retryable and attempt < max_attempts and not is_spent
    assert isinstance(decided, Retry if may_retry else DeadLetter)


@given(ATTEMPTS, POLICIES, CHANCES, st.none() | st.floats(0, 1e6))
def test_a_delay_is_positive_capped_and_not_before_the_handlers_wish(attempt, policy, chance, retry_after):
    assume("a.b" not in policy.overrides)
    decided = decision(
        failure(retry_after=retry_after), attempt=attempt, max_attempts=1_001, policy=policy, chance=chance
    )
    full = min(policy.base_seconds * policy.factor ** min(attempt, 10), policy.cap_seconds)
    wish = retry_after or 0.0
    assert isinstance(decided, Retry)
    assert max(min(1.0, full), wish) <= decided.delay_seconds <= max(full, wish)


@given(ATTEMPTS, POLICIES)
def test_without_jitter_chance_decides_nothing_and_delays_never_shrink(attempt, policy):
    assume(not policy.jitter)
    delays = [
        decision(failure(), attempt=number, max_attempts=2_000, policy=policy, chance=chance).delay_seconds
        for number, chance in ((attempt, 0.0), (attempt, 0.999), (attempt + 1, 0.5))
    ]
    assert delays[0] == delays[1] <= delays[2]


def test_the_default_formula_doubles_from_ten_seconds_to_five_minutes():
    delays = [decision(failure(), attempt=attempt, max_attempts=99).delay_seconds for attempt in (1, 2, 3, 4, 5, 6, 50)]
    assert delays == [10, 20, 40, 80, 160, 300, 300]


def test_jitter_spreads_evenly_over_the_whole_delay_but_not_below_a_second():
    delays = [decision(failure(), policy=RetryPolicy(), chance=chance).delay_seconds for chance in (0, 0.05, 0.25, 0.5)]
    assert delays == [1, 1, 2.5, 5]


@pytest.mark.parametrize("chance", [0.0, 0.9])
def test_an_override_replaces_formula_and_jitter_on_every_attempt(chance):
    policy = RetryPolicy(overrides={"a.b": 0.25})
    assert decision(failure(), attempt=2, policy=policy, chance=chance) == Retry(0.25)
    assert decision(failure(retry_after=60), policy=policy, chance=chance) == Retry(60)


def test_the_reason_of_a_dead_letter_is_the_rule_that_ended_it():
    assert decision(failure(Outcome.TERMINAL)) == DeadLetter(DeadLetterReason.FAILURE_KIND_NON_RETRYABLE)
    assert decision(failure(), attempt=3) == DeadLetter(DeadLetterReason.ATTEMPTS_EXHAUSTED)
    assert decision(failure(Outcome.PANICKED), crashes=3) == DeadLetter(DeadLetterReason.CRASH_BUDGET_SPENT)


def test_a_poison_pill_on_its_last_attempt_is_called_one():
    decided = decision(failure(Outcome.PANICKED), attempt=3, crashes=3)
    assert decided == DeadLetter(DeadLetterReason.CRASH_BUDGET_SPENT)


def test_earlier_crashes_do_not_end_a_job_that_failed_otherwise():
    assert isinstance(decision(failure(Outcome.TIMEOUT), crashes=5), Retry)


def test_a_stored_policy_that_overflows_waits_for_its_cap():
    assert decision(failure(), attempt=9, max_attempts=10, policy=RetryPolicy(factor=1e300, jitter=False)) == Retry(300)


@pytest.mark.parametrize(
    "policy",
    [
        RetryPolicy(base_seconds=2, factor=3, cap_seconds=600, jitter=False),
        RetryPolicy(overrides={"a.b": 60}),
    ],
)
def test_whole_seconds_are_floats_so_that_ends_of_other_jobs_can_be_stored_beside_them(policy):
    assert type(decision(failure(), policy=policy).delay_seconds) is float

"""What an exception says about its attempt: clean, bounded, and never a second failure."""

import pickle
import sys
import traceback
from datetime import timedelta
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runledger.core.errors import InvalidCheckpoint, InvalidPayload, InvalidProgress, InvalidRequest
from runledger.core.failures import (
    Continue,
    Failure,
    JobCancelled,
    JobFailure,
    JobTimeout,
    Snooze,
    failure_of,
    terminal_failure_of,
)
from runledger.core.gate import IDENTIFIER_LIMIT, MESSAGE_LIMIT, TRACEBACK_LIMIT, encode_json
from runledger.core.states import Outcome


class Unspeakable(Exception):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def __str__(self) -> str:
        raise self.error


class Silent(JobFailure):
    def __init__(self, reason: str) -> None:
        self.reason = reason


def raised(exception: BaseException) -> BaseException:
    try:
        raise exception
    except BaseException as caught:
        return caught


def failure_from(exception: BaseException) -> Failure:
    failure = failure_of(raised(exception))
    for text, limit in ((failure.message, MESSAGE_LIMIT), (failure.traceback or "", TRACEBACK_LIMIT)):
        assert len(text.encode()) <= limit
        assert "\0" not in text
    assert 0 < len(failure.code.encode()) <= IDENTIFIER_LIMIT
    return failure


def test_a_job_failure_speaks_for_itself():
    terminal = failure_from(JobFailure.terminal("mail.no_recipient", "the order has no address"))
    assert (terminal.outcome, terminal.code) == (Outcome.TERMINAL, "mail.no_recipient")
    assert terminal.message == "the order has no address"
    later = failure_from(JobFailure.retryable("mail.busy", "try later", retry_after=timedelta(minutes=2)))
    assert (later.outcome, later.retry_after_seconds) == (Outcome.RETRYABLE, 120.0)
    assert str(JobFailure.retryable("mail.busy", "try later")) == "mail.busy: try later"


@pytest.mark.parametrize("code", ["", " ", "a\nb", "x" * 201, None, 7, "\ud800", b"code"])
def test_a_bad_code_never_hides_the_failure(code):
    failure = failure_from(JobFailure.terminal(code, "the message"))
    assert (failure.outcome, failure.code, failure.message) == (
        Outcome.TERMINAL,
        "job.invalid_failure_code",
        "the message",
    )


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        (-5, 0.0),
        (0, 0.0),
        (1.5, 1.5),
        (timedelta(-1), 0.0),
        (float("inf"), 3650 * 86_400.0),
        (10**400, 3650 * 86_400.0),
        (timedelta.max, 3650 * 86_400.0),
        (float("nan"), None),
        ("soon", None),
        (True, None),
        (object(), None),
    ],
)
def test_a_bad_retry_after_is_bounded_or_dropped(retry_after, seconds):
    assert failure_from(JobFailure.retryable("a.b", "m", retry_after=retry_after)).retry_after_seconds == seconds


def test_a_subclass_that_forgets_its_parent_still_fails_the_attempt():
    failure = failure_from(Silent("lost"))
    assert (failure.outcome, failure.code, failure.message) == (
        Outcome.RETRYABLE,
        "job.invalid_failure_code",
        "lost",
    )
    tampered = JobFailure.terminal("a.b", "m")
    tampered.code, tampered.message, tampered.outcome = object(), b"\0", "nonsense"  # type: ignore[assignment]
    assert failure_from(tampered).outcome == Outcome.RETRYABLE


def test_signals_of_a_handler_survive_pickling():
    failure = pickle.loads(pickle.dumps(JobFailure.terminal("a.b", "m")))
    assert (failure.code, failure.message, failure.outcome) == ("a.b", "m", Outcome.TERMINAL)
    assert pickle.loads(pickle.dumps(Snooze(5))).delay_seconds == 5.0
    assert pickle.loads(pickle.dumps(Continue())).delay_seconds == 0.0


@pytest.mark.parametrize("kind", [Snooze, Continue])
def test_a_delay_is_between_zero_and_ten_years(kind):
    assert kind(timedelta(seconds=1.5)).delay_seconds == 1.5
    assert kind(3650 * 86_400).delay_seconds == 3650 * 86_400
    for delay in (-1, float("nan"), float("inf"), timedelta.max, "5", True):
        with pytest.raises(InvalidRequest, match=r"^delay "):
            kind(delay)


@pytest.mark.parametrize("kind", [JobCancelled, JobTimeout])
def test_an_interruption_passes_through_except_exception(kind):
    with pytest.raises(kind):
        try:
            raise kind()
        except Exception:
            pytest.fail("swallowed")


def test_a_timeout_has_its_own_outcome():
    failure = failure_from(JobTimeout())
    assert (failure.outcome, failure.code) == (Outcome.TIMEOUT, "job.timeout_exceeded")
    assert failure.message


@pytest.mark.parametrize(
    ("exception", "code"),
    [
        (ValueError("bad"), "exception.ValueError"),
        (KeyError("key"), "exception.KeyError"),
        (MemoryError(), "exception.MemoryError"),
        (SystemExit(0), "exception.SystemExit"),
        (KeyboardInterrupt(), "exception.KeyboardInterrupt"),
        (GeneratorExit(), "exception.GeneratorExit"),
        (pickle.PicklingError("x"), "exception._pickle.PicklingError"),
        (ExceptionGroup("many", [ValueError()]), "exception.ExceptionGroup"),
        (BaseExceptionGroup("many", [SystemExit()]), "exception.BaseExceptionGroup"),
        (InvalidPayload("of another job"), "exception.runledger.InvalidPayload"),
        (type("E" * 500, (Exception,), {"__module__": "m"})(), "exception.m." + "E" * 185 + "…"),
        (type("a\nb", (Exception,), {})(), "job.invalid_failure_code"),
        (type("X", (Exception,), {"__module__": None})(), "exception.None.X"),
    ],
)
def test_any_other_exception_is_retried_under_the_name_of_its_class(exception, code):
    failure = failure_from(exception)
    assert (failure.outcome, failure.code) == (Outcome.RETRYABLE, code)


@pytest.mark.parametrize("error", [InvalidProgress("done exceeds total"), InvalidCheckpoint("checkpoint is a set")])
def test_what_the_gate_refused_from_a_running_job_is_terminal_with_its_own_code(error):
    failure = failure_from(error)
    assert (failure.outcome, failure.code, failure.message) == (Outcome.TERMINAL, error.code, str(error))
    assert terminal_failure_of(InvalidPayload("p")) == Failure(Outcome.TERMINAL, "job.invalid_payload", "p", None, None)


@pytest.mark.parametrize("error", [ValueError(), SystemExit(3), KeyboardInterrupt(), RecursionError(), MemoryError()])
def test_an_exception_whose_str_raises_is_recorded(error):
    failure = failure_from(Unspeakable(error))
    assert failure.message == "<Unspeakable without text>"
    assert "raised" in (failure.traceback or "")


def test_the_message_is_cleaned_and_cut():
    assert failure_from(ValueError("a\0b\ud800c")).message == "abc"
    assert failure_from(ValueError("x" * 10_000_000)).message.endswith("…")
    assert failure_from(JobFailure.terminal("a.b", "x\0" * 5_000)).message.endswith("…")


def test_the_traceback_begins_in_the_users_code():
    try:
        encode_json(object(), error=InvalidPayload)
    except InvalidPayload as error:
        text = failure_of(error).traceback
    assert text is not None
    assert text.startswith("Traceback (most recent call last):\n")
    assert "in test_the_traceback_begins_in_the_users_code\n    encode_json(object(), error=InvalidPayload)" in text


def test_frames_of_the_library_are_dropped_from_the_top():
    import runledger.core.shapes as shapes

    def handler(_: Any) -> None:
        raise ValueError("mine")

    try:
        shapes.ParsedShape("x", str, handler, str).read("x", "payload")
    except InvalidPayload as error:
        inner = error.__context__
    assert inner is not None
    assert inner.__traceback__ is not None
    assert traceback.extract_tb(inner.__traceback__)[0].name == "read"
    text = failure_of(inner).traceback or ""
    assert "in handler" in text
    assert "in read" not in text


def test_the_end_of_a_long_traceback_is_kept():
    text = failure_from(ValueError("x" * 100_000 + "the end")).traceback or ""
    assert text.startswith("…")
    assert text.endswith("the end\n")


def test_endless_recursion_is_a_bounded_failure():
    def descend(level: int) -> int:
        return descend(level + 1) + 1

    with pytest.raises(RecursionError) as caught:
        descend(0)
    failure = failure_of(caught.value)
    assert failure.code == "exception.RecursionError"
    assert "descend" in (failure.traceback or "")
    assert len(failure.traceback or "") <= TRACEBACK_LIMIT


def deep_group(depth: int) -> BaseException:
    group: BaseException = ValueError("innermost")
    for _ in range(depth):
        group = BaseExceptionGroup("level", [group])
    return group


def long_chain(length: int) -> BaseException:
    first = last = raised(ValueError("0"))
    for number in range(length):
        last.__cause__ = raised(ValueError(str(number)))
        last = last.__cause__
    return first


@pytest.mark.parametrize(
    "exception",
    [
        ExceptionGroup("wide", [ValueError(str(number)) for number in range(5_000)]),
        deep_group(30),
        deep_group(400),
        long_chain(5),
        long_chain(3_000),
    ],
    ids=["wide group", "group", "deep group", "chain", "long chain"],
)
def test_related_exceptions_are_shown_within_bounds(exception):
    failure = failure_from(exception)
    assert (failure.traceback or "").startswith(("Traceback", "  + Exception Group", "…"))


def test_causes_are_shown():
    try:
        try:
            raise KeyError("the cause")
        except KeyError as cause:
            raise ValueError("the effect") from cause
    except ValueError as error:
        text = failure_of(error).traceback or ""
    assert "the cause" in text
    assert "direct cause" in text


def test_an_exception_that_was_never_raised_has_no_traceback():
    assert failure_of(ValueError("x")).traceback is None


class Booby(Exception):
    """Everything that can be asked of it raises."""

    @property
    def __notes__(self) -> Any:
        raise RuntimeError

    @property
    def exceptions(self) -> Any:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


def test_an_exception_that_defends_itself_is_recorded():
    assert failure_from(Booby()).code.endswith("test_failures.Booby")
    syntax = SyntaxError("x", ("f", 1, 1, "text"))
    syntax.lineno = Unspeakable(RuntimeError())  # type: ignore[assignment]
    assert failure_from(syntax).code == "exception.SyntaxError"


@given(st.text(st.characters(), max_size=50), st.text(st.characters(), max_size=50))
def test_whatever_code_and_message_are_the_failure_can_be_stored(code, message):
    failure = failure_from(JobFailure.retryable(code, message))
    failure.code.encode()
    failure.message.encode()


def test_outcomes_are_members_of_the_enum():
    assert isinstance(failure_from(ValueError()).outcome, Enum)
    assert sys.exc_info() == (None, None, None)

"""Exceptions that come from outside a handler: its timeout, its cancellation. Raised only while user code runs.

Signals arrive in the main thread between two byte codes. The handler here raises when user code is running, and
otherwise notes what it would have raised; framework code called from a handler (a progress write, say) is shielded,
and the exception follows when it returns.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from runledger.core.failures import JobCancelled, JobTimeout
from runledger.runtime.slots import Slot

CANCEL_SIGNAL = signal.SIGUSR2
"""Sent by the keeper after it named the token in the slot: the attempt counts no more."""

ARM_AGAIN_SECONDS = 0.05
"""An alarm that is set and early enough is left alone for so long: to set one costs as much as to run a short job.
It is set again then, in case a handler has taken it away."""

ALARM_SLACK_SECONDS = 0.005
"""How much earlier than the clock says an alarm may come and still count."""


class Interrupts:
    """Arms the timer of an attempt and raises into its handler. One for each worker process, in the main thread."""

    __slots__ = ("_armed_at", "_deadline", "_fires_at", "_is_user_code", "_pending", "_slot", "_token")

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._is_user_code = False
        self._pending: BaseException | None = None
        self._token = 0
        self._deadline = self._armed_at = 0.0
        self._fires_at = float("inf")
        signal.signal(signal.SIGALRM, self._on_alarm)
        signal.signal(CANCEL_SIGNAL, self._on_cancel)

    def enter(self, token: int, timeout_seconds: float) -> None:
        """User code runs from here on, for at most ``timeout_seconds``."""
        now = time.monotonic()
        self._pending = None
        self._deadline = now + timeout_seconds
        self._token = token  # from here on an alarm of an earlier attempt sets itself again
        if self._deadline < self._fires_at or now - self._armed_at > ARM_AGAIN_SECONDS:
            self._arm(now)
        self._is_user_code = True

    def leave(self) -> None:
        """User code has ended; nothing is raised any more. The timer may still fire: nobody listens, and it serves the
        next attempt, so disarming it would be a system call for nothing."""
        self._is_user_code = False
        self._token = 0
        self._pending = None

    def has_been_told(self, token: int) -> bool:
        """Whether keeper or supervisor said that the attempt with this token counts no more."""
        return self._slot.interrupted_token == token

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Framework code called by a handler: what comes meanwhile is raised at its end."""
        was_user_code, self._is_user_code = self._is_user_code, False
        try:
            yield
        finally:
            self._is_user_code = was_user_code
            if was_user_code:  # else an outer shield still holds, and raises it at its own end
                pending, self._pending = self._pending, None
                if pending is not None:
                    raise pending

    def _on_alarm(self, number: int, frame: object) -> None:
        now = time.monotonic()
        self._fires_at = float("inf")
        if not self._token:
            return  # it was set for an attempt that has ended
        if now >= self._deadline - ALARM_SLACK_SECONDS:
            self._raise(JobTimeout("the attempt ran longer than its timeout"))
        else:
            self._arm(now)

    def _arm(self, now: float) -> None:
        self._armed_at, self._fires_at = now, self._deadline
        signal.setitimer(signal.ITIMER_REAL, self._deadline - now)

    def _on_cancel(self, number: int, frame: object) -> None:
        if self._token and self._slot.interrupted_token == self._token:
            self._raise(JobCancelled("the attempt was cancelled or has lost its lease"))

    def _raise(self, error: BaseException) -> None:
        if self._is_user_code:
            raise error
        if self._token:
            self._pending = error

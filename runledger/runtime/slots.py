"""The shared slots: one anonymous memory table, made before the first fork, a slot for each worker process.

A worker writes its own slot; supervisor and keeper read it, and write only the two words that are addressed to the
worker. Every word is eight bytes, aligned, and written whole, so no reader sees half a word; what belongs together is
written in an order that keeps every state in between true. Times are monotonic nanoseconds, the same in every process
of a host.
"""

import mmap
from collections.abc import Sequence
from enum import IntEnum

LARGEST_BATCH = 1_000
_HEADER_WORDS = 24
_SLOT_WORDS = _HEADER_WORDS + LARGEST_BATCH


class SlotState(IntEnum):
    EMPTY = 0
    BOOTING = 1
    IDLE = 2
    BUSY = 3
    LEAVING = 4


class _Word(IntEnum):
    PID = 0
    INCARNATION = 1
    STATE = 2
    TURNS = 3
    TURN_AT = 4
    CLAIMED_AT = 5
    BATCH_SIZE = 6
    POSITION = 7
    RUNNING_TOKEN = 8
    STARTED_AT = 9
    HARD_DEADLINE = 10
    JOBS_DONE = 11
    INTERRUPTED_TOKEN = 12
    LEAVE = 13
    SPAWNED_AT = 14
    QUIET = 15
    FITTED = 16
    PREPARED = 17
    INTERRUPT_DEADLINE = 18


class Slot:
    """One worker's words. Attributes read and write shared memory at once."""

    __slots__ = ("_base", "_words", "index")

    def __init__(self, words: "memoryview[int]", index: int) -> None:
        self._words = words
        self._base = index * _SLOT_WORDS
        self.index = index

    def _get(self, word: _Word) -> int:
        return self._words[self._base + word]

    def _set(self, word: _Word, value: int) -> None:
        self._words[self._base + word] = value

    def reset(self, incarnation: int, spawned_at: int) -> None:
        """The slot belongs to a new process that has not said anything yet."""
        for word in _Word:
            self._set(word, 0)
        self._set(_Word.POSITION, -1)
        self._set(_Word.INCARNATION, incarnation)
        self._set(_Word.SPAWNED_AT, spawned_at)
        self._set(_Word.STATE, SlotState.BOOTING)

    def clear(self) -> None:
        """Nobody lives here."""
        self._set(_Word.STATE, SlotState.EMPTY)
        self._set(_Word.PID, 0)
        self._set(_Word.HARD_DEADLINE, 0)

    def ask_to_leave(self, is_asked: bool = True, /) -> None:
        """The worker ends between two jobs and is replaced; or may stay after all, if it is still there."""
        self._set(_Word.LEAVE, int(is_asked))

    def set_quiet(self, is_quiet: bool, /) -> None:
        """A quiet worker claims nothing and goes on living."""
        self._set(_Word.QUIET, int(is_quiet))

    def set_prepared(self) -> None:
        """The database has answered, and the schema fits."""
        self._set(_Word.PREPARED, 1)

    def interrupt(self, token: int, deadline: int = 0) -> None:
        """The attempt with this token counts no more; its handler is to be interrupted, and to have ended by
        ``deadline``, if there is one."""
        self._set(_Word.INTERRUPT_DEADLINE, deadline)
        self._set(_Word.INTERRUPTED_TOKEN, token)

    def set_pid(self, pid: int) -> None:
        self._set(_Word.PID, pid)

    def turn(self, state: SlotState, now: int) -> None:
        """The loop went round once more."""
        words, base = self._words, self._base
        words[base + _Word.TURNS] += 1
        words[base + _Word.TURN_AT] = now
        words[base + _Word.STATE] = state

    def hold(self, tokens: Sequence[int], claimed_at: int, *, begun: int = 0) -> None:
        """The worker holds these leases, in the order in which it will run them; the handlers of the first ``begun``
        have returned, and their outcomes could not be settled yet. Earlier ones are settled."""
        words, base = self._words, self._base
        words[base + _Word.BATCH_SIZE] = 0
        words[base + _Word.POSITION] = begun - 1
        start = base + _HEADER_WORDS
        for offset, token in enumerate(tokens):
            words[start + offset] = token
        words[base + _Word.CLAIMED_AT] = claimed_at
        words[base + _Word.BATCH_SIZE] = len(tokens)

    def begin(self, position: int, token: int, now: int, hard_deadline: int) -> None:
        """The handler of the lease at ``position`` begins."""
        words, base = self._words, self._base
        words[base + _Word.POSITION] = position
        words[base + _Word.STARTED_AT] = now
        words[base + _Word.HARD_DEADLINE] = hard_deadline
        words[base + _Word.RUNNING_TOKEN] = token
        words[base + _Word.TURN_AT] = now

    def end(self) -> None:
        """The handler has returned; its outcome waits to be settled."""
        words, base = self._words, self._base
        words[base + _Word.HARD_DEADLINE] = 0
        words[base + _Word.RUNNING_TOKEN] = 0
        words[base + _Word.JOBS_DONE] += 1

    def note_fit(self) -> None:
        """The schema was what this release needs; of the supervisor's slot, for the whole host."""
        self._set(_Word.FITTED, 1)

    @property
    def pid(self) -> int:
        return self._get(_Word.PID)

    @property
    def incarnation(self) -> int:
        return self._get(_Word.INCARNATION)

    @property
    def state(self) -> SlotState:
        return SlotState(self._get(_Word.STATE))

    @property
    def turn_at(self) -> int:
        return self._get(_Word.TURN_AT)

    @property
    def spawned_at(self) -> int:
        return self._get(_Word.SPAWNED_AT)

    @property
    def claimed_at(self) -> int:
        return self._get(_Word.CLAIMED_AT)

    @property
    def running_token(self) -> int:
        """0 while no handler runs."""
        return self._get(_Word.RUNNING_TOKEN)

    @property
    def started_at(self) -> int:
        return self._get(_Word.STARTED_AT)

    @property
    def hard_deadline(self) -> int:
        """0 while no handler runs."""
        return self._get(_Word.HARD_DEADLINE)

    @property
    def jobs_done(self) -> int:
        return self._get(_Word.JOBS_DONE)

    @property
    def interrupted_token(self) -> int:
        return self._get(_Word.INTERRUPTED_TOKEN)

    @property
    def interrupt_deadline(self) -> int:
        """Of the handler that runs, when it has been interrupted; else 0."""
        is_interrupted = self.running_token and self.running_token == self.interrupted_token
        return self._get(_Word.INTERRUPT_DEADLINE) if is_interrupted else 0

    @property
    def is_asked_to_leave(self) -> bool:
        return self._get(_Word.LEAVE) == 1

    @property
    def is_quiet(self) -> bool:
        return self._get(_Word.QUIET) == 1

    @property
    def has_fitted(self) -> bool:
        return self._get(_Word.FITTED) == 1

    @property
    def is_prepared(self) -> bool:
        return self._get(_Word.PREPARED) == 1

    def tokens(self) -> tuple[list[int], list[int]]:
        """The leases whose handlers have begun, the running one included, and those whose have not."""
        start = self._base + _HEADER_WORDS
        size = self._get(_Word.BATCH_SIZE)
        begun = self._get(_Word.POSITION) + 1
        held = list(self._words[start : start + size])
        return held[:begun], held[begun:]


class SlotTable:
    """``count`` slots in memory that every process forked from here shares."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, (count + 1) * _SLOT_WORDS * 8)
        words = memoryview(self._memory).cast("q")
        self.slots = tuple(Slot(words, index) for index in range(count))
        self._supervisor = Slot(words, count)

    def beat(self, now: int) -> None:
        """The supervisor's loop went round once more."""
        self._supervisor.turn(SlotState.BUSY, now)

    @property
    def beaten_at(self) -> int:
        """When the supervisor's loop last went round."""
        return self._supervisor.turn_at

    def note_fit(self) -> None:
        """A process of this host has seen a schema that is what this release needs."""
        self._supervisor.note_fit()

    @property
    def has_fitted(self) -> bool:
        """Whether any has, since the host started."""
        return self._supervisor.has_fitted

"""The replacement of a host's workers by fresh processes: who leaves next.

A worker that runs nothing leaves in its turn, when no slot is without a ready process. One whose job has lasted long
holds nobody up: it is asked as well and leaves when its job ends, as long as that can leave two slots empty at most.
"""

from collections.abc import Sequence

from runledger.runtime.slots import Slot, SlotState

LONG_SECONDS = 5.0
"""A job that has lasted longer is not waited for; its worker leaves out of turn."""

MOST_AWAY = 2
"""Slots without a ready process before those in long jobs are asked to stay a while."""

READY = (SlotState.IDLE, SlotState.BUSY)


class Replacement:
    """At most one for a host at a time. ``next_to_leave`` is asked at every turn of the supervisor."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._old: dict[int, int] = {}

    def begin(self) -> int:
        """Every worker of now is to be replaced; answers how many."""
        self._old = {slot.index: slot.incarnation for slot in self._slots if slot.pid}
        return len(self._old)

    def stop(self) -> None:
        """Whoever has not left stays."""
        for slot in self._left():
            slot.ask_to_leave(False)
        self._old = {}

    def next_to_leave(self, now: int, vacant: frozenset[int] | set[int] = frozenset()) -> list[Slot]:
        """Slots whose workers were asked to leave just now. ``vacant`` are those that stay empty on purpose."""
        left = [slot for slot in self._left() if slot.state in READY]
        if not left:
            return []
        long = [slot for slot in left if slot.running_token and now - slot.started_at > LONG_SECONDS * 1e9]
        prompt = [slot for slot in left if slot not in long]
        away = sum(slot.state not in READY for slot in self._slots if slot.index not in vacant)
        away += sum(slot.is_asked_to_leave for slot in prompt)
        asked = [min(prompt, key=lambda slot: slot.running_token > 0)] if prompt and not away else []
        if away + len(asked) < MOST_AWAY:
            asked += [slot for slot in long if not slot.is_asked_to_leave]
        else:
            for slot in long:
                slot.ask_to_leave(False)
        for slot in asked:
            slot.ask_to_leave()
        return asked

    def _left(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.pid and self._old.get(slot.index) == slot.incarnation]

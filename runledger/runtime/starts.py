"""When a child of a role may be started again after its predecessor ended badly."""

import time

FAST_DEATH_SECONDS = 1.0
MOST_FAST_DEATHS = 10
"""Children of one role that die within a second of their start, in a row, before the supervisor gives up."""

LONGEST_PAUSE_SECONDS = 10.0
LONGEST_MISFIT_PAUSE_SECONDS = 60.0
"""Between two tries to start a worker that could not import the app, while others work on."""


class Starts:
    """``is_crash_looping``: no further start will help."""

    def __init__(self) -> None:
        self._fast_deaths: dict[str, int] = {}
        self._held_until: dict[str, float] = {}
        self.misfits = 0
        self.is_crash_looping = False

    def note_death(self, role: str, lived_seconds: float, *, is_harmless: bool) -> None:
        """The next start of the role waits after a fast death, longer after each."""
        if is_harmless or lived_seconds > FAST_DEATH_SECONDS:
            self._fast_deaths[role] = 0
            return
        deaths = self._fast_deaths[role] = self._fast_deaths.get(role, 0) + 1
        self._held_until[role] = time.monotonic() + min(LONGEST_PAUSE_SECONDS, 0.05 * 2**deaths)
        self.is_crash_looping = self.is_crash_looping or deaths >= MOST_FAST_DEATHS

    def note_misfit(self, role: str) -> float:
        """The seconds until the role may start again, after a child that found the set-up wrong."""
        self.misfits += 1
        pause = min(LONGEST_MISFIT_PAUSE_SECONDS, 2.0 ** min(self.misfits, 10))
        self._held_until[role] = time.monotonic() + pause
        return pause

    def forgive(self, role: str) -> None:
        """The set-up is right again: the role may start at once."""
        self.misfits = 0
        self._held_until.pop(role, None)

    def is_held_back(self, role: str) -> bool:
        """Whether the role may not be started yet."""
        if time.monotonic() < self._held_until.get(role, 0.0):
            return True
        self._held_until.pop(role, None)
        return False

    def pauses(self) -> list[float]:
        """Seconds until each start that is held back now."""
        now = time.monotonic()
        return [until - now for until in self._held_until.values()]

"""How many jobs to claim at once: one at first, more only while they are short."""

BATCH_SECONDS = 0.1
"""A batch should not last longer: what waits in it could run elsewhere."""

LARGEST_GROWTH = 4
"""From one batch to the next."""

STALE_SECONDS = 0.5
"""A claimed job that has not begun by then goes back; the keeper takes it back at twice that."""


class Prefetch:
    """The size of the next claim, from how long the last batch took. Grows up to fourfold while batches are full and
    short, never to more than would fit, and falls at once to what fits when they are not."""

    __slots__ = ("largest", "size")

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.size = 1

    def learn(self, *, claimed: int, seconds: float) -> None:
        """A batch of ``claimed`` jobs took ``seconds``."""
        if seconds > BATCH_SECONDS:
            self.size = max(1, min(self.size, int(claimed * BATCH_SECONDS / seconds)))
        elif claimed >= self.size:
            growth = max(1, min(LARGEST_GROWTH, int(BATCH_SECONDS / max(seconds, 1e-6))))
            self.size = min(self.largest, self.size * growth)

"""A long piece of work in small steps, each following from the one before: what a checkpoint is for.

The text is made from nothing but the number of the step, so any process can do any step again.
"""

import hashlib
from dataclasses import dataclass

from runledger.demo.extraction import extract

STEPS = 100
SENTENCES_PER_STEP = 40
_WORDS = ("ledger", "lease", "claim", "settle", "retry", "worker", "commit", "token")


@dataclass(frozen=True, slots=True)
class LongText:
    """The work after ``step`` steps. ``chain`` depends on every step before, so a lost or repeated one would show."""

    step: int = 0
    words: int = 0
    chain: str = ""

    def next(self) -> "LongText":
        """The work after one more step."""
        facts = extract(_page(self.step), ".txt")
        chain = hashlib.sha256((self.chain + facts.sha256).encode()).hexdigest()
        return LongText(self.step + 1, self.words + facts.words, chain)


def read_through() -> LongText:
    """The whole work in one go."""
    text = LongText()
    for _ in range(STEPS):
        text = text.next()
    return text


def _page(step: int) -> bytes:
    order = hashlib.sha256(str(step).encode()).digest()
    sentence = " ".join(_WORDS[byte % len(_WORDS)] for byte in order)
    return "\n".join([sentence] * SENTENCES_PER_STEP).encode()

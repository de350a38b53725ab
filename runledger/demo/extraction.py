"""What the demonstration computes from one file: a pure function, so that a queue's result has something to be
compared with."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass

MOST_TOP_WORDS = 10
MOST_ENTRIES = 200
SHORTEST_TOP_WORD = 4

_WORD = re.compile(r"[^\W\d_]+")
_MARKDOWN_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)
_DEFINITION = re.compile(r"^[ \t]*((?:class|def|fn|func|function|interface|struct) +\w+)", re.MULTILINE)
_LINK = re.compile(r"https?://[^\s<>\"'`)\]}]+")
_MARKDOWN_SUFFIXES = frozenset({".md", ".markdown", ".txt", ".rst"})


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The digest of a file's bytes, and what its text holds: all words counted, the commonest ones, headings (of
    prose) or definitions (of source), and the links in the order of their names."""

    sha256: str
    words: int
    top_words: tuple[tuple[str, int], ...]
    headings: tuple[str, ...]
    links: tuple[str, ...]


def extract(content: bytes, suffix: str) -> FileFacts:
    """The facts of a file with this content and this suffix. Bytes that are no UTF-8 count as replacement marks."""
    text = content.decode(errors="replace")
    words = [word.lower() for word in _WORD.findall(text)]
    pattern = _MARKDOWN_HEADING if suffix.lower() in _MARKDOWN_SUFFIXES else _DEFINITION
    links = {link.rstrip(".,;:!?\\") for link in _LINK.findall(text)}
    return FileFacts(
        sha256=hashlib.sha256(content).hexdigest(),
        words=len(words),
        top_words=_top_words(words),
        headings=tuple(pattern.findall(text)[:MOST_ENTRIES]),
        links=tuple(sorted(links)[:MOST_ENTRIES]),
    )


def _top_words(words: list[str]) -> tuple[tuple[str, int], ...]:
    """The commonest longer words; those that are equally common in the order of the alphabet."""
    counted = Counter(word for word in words if len(word) >= SHORTEST_TOP_WORD)
    ranked = sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))
    return tuple(ranked[:MOST_TOP_WORDS])

"""The traceback of a failed attempt as text: the user's frames, clean and bounded, whatever was raised.

Reading source lines goes through the standard ``linecache``; nothing else here touches a file.
"""

import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

from runledger.core.gate import MESSAGE_LIMIT, TRACEBACK_LIMIT, clean_text

_OWN_FILES: Final = f"{Path(__file__).parents[1]}/"
_MAX_FRAMES: Final = 50
_MAX_RELATED: Final = 50


def traceback_text(exception: BaseException) -> str | None:
    """At most 16 KiB, the end kept. Frames of this package are dropped from the top. None without a frame.

    Never fails: what cannot be formatted in full is formatted without its causes, or as its class alone.
    """
    if exception.__traceback__ is None:
        return None
    try:
        lines = _full(exception) if _has_few_relatives(exception) else _alone(exception)
    except Exception:  # a RecursionError within a deep group, or whatever the exception's own attributes raise
        lines = _alone(exception)
    return clean_text("".join(lines), TRACEBACK_LIMIT, keep_end=True)


def _full(exception: BaseException) -> list[str]:
    shown = _without_own_frames(exception.__traceback__)
    return list(
        traceback.TracebackException(type(exception), exception, shown, limit=-_MAX_FRAMES, compact=True).format()
    )


def _alone(exception: BaseException) -> list[str]:
    frames = traceback.extract_tb(_without_own_frames(exception.__traceback__), limit=-_MAX_FRAMES)
    last_line = f"{type(exception).__qualname__}: {clean_text(exception, MESSAGE_LIMIT)}\n"
    return ["Traceback (most recent call last):\n", *frames.format(), last_line]


def _without_own_frames(trace: TracebackType | None) -> TracebackType | None:
    """From the first frame of other code on; unchanged when there is none."""
    step = trace
    while step is not None and step.tb_frame.f_code.co_filename.startswith(_OWN_FILES):
        step = step.tb_next
    return trace if step is None else step


def _has_few_relatives(exception: BaseException) -> bool:
    """Whether causes, contexts and members of groups, all told, are few enough to be formatted."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exception]
    while waiting and len(seen) <= _MAX_RELATED:
        related = waiting.pop()
        if related is None or id(related) in seen:
            continue
        seen.add(id(related))
        waiting += (related.__cause__, related.__context__)
        if isinstance(related, BaseExceptionGroup):
            waiting += related.exceptions[: _MAX_RELATED + 1]
    return len(seen) <= _MAX_RELATED

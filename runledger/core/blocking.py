"""A warning for calls that would stop an event loop: everything here waits for the database in the caller's thread."""

import sys
import warnings

MESSAGE = (
    "a blocking call of Runledger runs in the thread of an event loop, and everything else there waits for it; "
    "call it from a synchronous function, or through asyncio.to_thread"
)
PACKAGE = __name__.partition(".")[0]


class BlockingCallWarning(RuntimeWarning):
    """A function that waits for the database was called from a coroutine."""


def warn_in_event_loop() -> None:
    """Warns where the current thread runs an event loop of asyncio, by default once for each line of the caller's.

    Costs a look at two dictionaries, because it stands before every call; it imports nothing.
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        warnings.warn(MESSAGE, BlockingCallWarning, stacklevel=_frames_of_ours())


def _frames_of_ours() -> int:
    """How many frames above ``warn_in_event_loop`` the first one stands that is not ours."""
    frame, level = sys._getframe(1), 0
    while frame.f_back is not None and _is_passed_over(str(frame.f_globals.get("__name__", ""))):
        frame, level = frame.f_back, level + 1
    return max(1, level + 1)


def _is_passed_over(module: str) -> bool:
    return module.partition(".")[0] in (PACKAGE, "contextlib")

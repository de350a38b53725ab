"""A child of the test's own process, and whether it did what it should."""

import os
import warnings
from collections.abc import Callable

AS_WANTED, OTHERWISE = 0, 1


def forked(child: Callable[[], bool]) -> int:
    """The exit status of a child that answered with ``child()``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that the child does not use
        pid = os.fork()
    if pid == 0:
        status = OTHERWISE
        try:
            status = AS_WANTED if child() else OTHERWISE
        finally:
            os._exit(status)
    _, wait_status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(wait_status)

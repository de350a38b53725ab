"""Many hosts one after the other, each told to stop at a random moment after its fork; what became of each is logged.

They are forked from here, because a new interpreter's imports take a hundred times as long as the moments that matter.
"""

import json
import os
import random
import signal
import sys
import time
from typing import Any

from runledger import Supervisor

DEADLINE_SECONDS = 60.0
LATEST_SIGNAL_SECONDS = 0.3


def main() -> None:
    options = json.loads(sys.argv[1])
    tries, chance = options.pop("tries"), random.Random(options.pop("seed"))
    for _ in range(tries):
        # half of them within the first forks, half until the workers have settled in
        latest = chance.choice((0.03, LATEST_SIGNAL_SECONDS))
        print(json.dumps({"event": "try.ended"} | one_try(options, chance.uniform(0.0, latest))), file=sys.stderr)


def one_try(options: dict[str, Any], seconds: float) -> dict[str, Any]:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            supervisor = Supervisor(database_url=os.environ["RL_TEST_DATABASE_URL"], log_format="json", **options)
            status = supervisor.run_until_shutdown()
        finally:
            os._exit(status)
    time.sleep(seconds)
    os.kill(pid, signal.SIGTERM)
    status = wait_for(pid)
    return {"after": seconds, "status": status, "left": processes_beside_us()}


def wait_for(pid: int) -> int:
    """Its exit status; when it does not end, it is killed, and the answer is the signal's."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def processes_beside_us() -> list[int]:
    """Whoever carries our mark after a second of patience, ourselves not counted."""
    wanted = f"RL_TEST_MARK={os.environ['RL_TEST_MARK']}".encode()
    deadline = time.monotonic() + 1.0
    while True:
        left = [pid for pid in all_pids() if pid != os.getpid() and wanted in environment_of(pid)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environment_of(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:
            return environment.read()
    except OSError:
        return b""


main()

"""Jobs of which only so many may run at once, in the whole fleet."""

import time
from typing import Any

from runledger import JobCatalog, JobContext

catalog = JobCatalog(max_attempts=3)


@catalog.job("two.at.once", max_running=2)
def two_at_once(context: JobContext, payload: dict[str, Any]) -> None:
    time.sleep(0.02)

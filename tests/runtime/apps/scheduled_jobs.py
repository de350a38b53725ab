"""An app whose one job is due every second."""

from typing import Any

from runledger import JobCatalog, JobContext

catalog = JobCatalog()


@catalog.job("beat")
def beat(context: JobContext, payload: dict[str, Any]) -> str:
    return str(payload["_schedule"]["scheduled_for"])


catalog.schedule("every-second", cron="* * * * * *", job_type="beat", payload={"n": 1})

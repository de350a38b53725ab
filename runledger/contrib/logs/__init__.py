"""The running job in every log record: for the standard library and for structlog."""

from runledger.contrib.logs.context import FIELDS, JobLogContext, JobLogFilter, add_job, current_job

__all__ = ["FIELDS", "JobLogContext", "JobLogFilter", "add_job", "current_job"]

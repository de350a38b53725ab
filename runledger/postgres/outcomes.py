"""How attempts ended, as the parameters of the statements that settle them: an array for each column.

Arrays travel as literals in text; the driver would look at every element.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Boolean, Double, Integer, SmallInteger, Text, Uuid
from sqlalchemy.types import BigInteger

from runledger.core.results import Ended, LeaseCheck, Succeeded
from runledger.postgres.arrays import plain_array, text_array
from runledger.postgres.statements import Parameters

SUCCEEDED_COLUMNS: dict[str, Any] = {
    "job_id": Uuid,
    "lease_token": BigInteger,
    "output": Text,
    "started_ago": Double,
    "finished_ago": Double,
    "cpu_ms": Integer,
    "max_rss_kb": Integer,
}
ENDED_COLUMNS: dict[str, Any] = SUCCEEDED_COLUMNS | {
    "outcome": Text,
    "final_status": Text,
    "status_reason": Text,
    "retry_seconds": Double,
    "is_refunded": Boolean,
    "is_continued": Boolean,
    "is_unstarted": Boolean,
    "error_code": Text,
    "error_message": Text,
    "traceback": Text,
    "exit_signal": SmallInteger,
}


def succeeded_parameters(results: Sequence[Succeeded]) -> Parameters:
    """The parameters of ``SETTLE_SUCCEEDED``."""
    return {
        "job_ids": plain_array([one.job_id for one in results]),
        "lease_tokens": plain_array([one.lease_token for one in results]),
        "outputs": text_array([one.output for one in results]),
        "started_agos": plain_array([one.started_ago for one in results]),
        "finished_agos": plain_array([one.finished_ago for one in results]),
        "cpu_mss": plain_array([one.cpu_ms for one in results]),
        "max_rss_kbs": plain_array([one.max_rss_kb for one in results]),
    }


def ended_parameters(results: Sequence[Ended], lease_check: LeaseCheck) -> Parameters:
    """The parameters of ``SETTLE_ENDED``."""
    parameters: Parameters = {
        f"{name}s": _array(type_, [getattr(one, name) for one in results]) for name, type_ in ENDED_COLUMNS.items()
    }
    parameters["lease_check"] = lease_check.value
    return parameters


def _array(type_: type[Any], values: list[Any]) -> str:
    return text_array(values) if type_ is Text else plain_array(values)

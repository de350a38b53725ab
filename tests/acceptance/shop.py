"""The application of the acceptance tests: a shop that sends receipts."""

from dataclasses import dataclass
from typing import Any

from runledger import JobCatalog, JobContext, JobFailure


@dataclass
class Order:
    number: int


catalog = JobCatalog(max_attempts=2)
not_a_catalog = {"mail.receipt": "send_receipt"}


@catalog.job("mail.receipt")
def send_receipt(context: JobContext, payload: dict[str, Any]) -> dict[str, Any]:
    context.log("INFO", "sending\x1b[31m", order=payload.get("order"))
    if payload.get("to") == "nobody":
        raise JobFailure.terminal("mail.no_recipient", "the order has\nno address")
    return {"sent": True}


@catalog.job("order.ship")
def ship_order(context: JobContext, payload: Order) -> int:
    return payload.number


@catalog.job("report.old", enabled=False)
def build_old_report(context: JobContext, payload: dict[str, Any]) -> None:
    return None

"""What workers do."""

from django.db import connection, transaction

from runledger import JobContext, JobFailure
from runledger.contrib.django import job
from shop.models import Order


@job("shop.charge", max_attempts=5, timeout_seconds=30)
def charge(context: JobContext, payload: dict) -> None:
    with transaction.atomic():  # the row and the end of the job: one commit, or neither
        if not Order.objects.filter(pk=payload["order_id"]).update(is_paid=True):
            raise JobFailure.terminal("order.gone", "the order was deleted")
        context.finish(connection, {"paid": payload["order_id"]})

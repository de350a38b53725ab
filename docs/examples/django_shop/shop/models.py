"""An order of one seat. Whether the seat is free is found out at the commit."""

from django.db import models


class Order(models.Model):
    seat = models.PositiveSmallIntegerField()
    is_paid = models.BooleanField(default=False)
    job_id = models.UUIDField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["seat"], name="one_order_per_seat", deferrable=models.Deferrable.DEFERRED)
        ]

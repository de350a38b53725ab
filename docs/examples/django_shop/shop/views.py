"""Order a seat; see who has paid."""

from django import forms
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render

from runledger import JobNotFound, Scope, get_job
from runledger.contrib.django import enqueue, ledger_connection
from shop.jobs import charge
from shop.models import Order


class OrderForm(forms.Form):
    seat = forms.IntegerField(min_value=1, max_value=40)


def orders(request: HttpRequest) -> HttpResponse:
    form = OrderForm(request.POST or None)
    if form.is_valid():
        try:
            with transaction.atomic():  # the order and the job: one commit, or neither
                order = Order.objects.create(seat=form.cleaned_data["seat"])
                order.job_id = enqueue(charge, {"order_id": order.pk}).job_id
                order.save()
            return redirect("order", order.pk)
        except IntegrityError:
            form.add_error("seat", "This seat is taken.")
    return render(request, "shop/orders.html", {"form": form, "orders": Order.objects.order_by("seat")})


def order(request: HttpRequest, order_id: int) -> JsonResponse:
    found = get_object_or_404(Order, pk=order_id)
    try:
        job = get_job(ledger_connection(), found.job_id, scope=Scope.any())
    except JobNotFound:  # pruned since
        raise Http404("this job is not kept any more") from None
    return JsonResponse({"seat": found.seat, "paid": found.is_paid, "job": job.status, "attempt": job.attempt})

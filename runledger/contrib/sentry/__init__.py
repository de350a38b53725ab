"""Errors, transactions and check-ins for Sentry, as a middleware."""

from runledger.contrib.sentry.reports import Sentry

__all__ = ["Sentry"]

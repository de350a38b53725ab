"""Traces and durations for OpenTelemetry, as a middleware."""

from runledger.contrib.otel.spans import OpenTelemetry

__all__ = ["OpenTelemetry"]

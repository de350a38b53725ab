"""Three ways to run the server, and none of them is meant for production.

Settings are passed when a server starts; whoever joins a running one gets the settings of its starter.
"""

from collections.abc import Mapping
from types import MappingProxyType

DEVELOPMENT_SETTINGS: Mapping[str, str] = MappingProxyType({"max_connections": "100", "synchronous_commit": "off"})
"""Survives a crash of the server; the last moments of work may be lost with it."""

TEST_SETTINGS: Mapping[str, str] = MappingProxyType(
    {"max_connections": "200", "synchronous_commit": "off", "fsync": "off", "full_page_writes": "off"}
)
"""As fast as possible; a crash of the machine may destroy the data."""

DURABLE_SETTINGS: Mapping[str, str] = MappingProxyType(
    {"max_connections": "100", "synchronous_commit": "on", "fsync": "on", "full_page_writes": "on"}
)
"""What production promises: for benchmarks and for a demonstration that kills processes."""

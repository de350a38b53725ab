"""Hosts and a desk, as the tests of processes have them."""

from runtime.conftest import desk, own_database, start_host

__all__ = ["desk", "own_database", "start_host"]

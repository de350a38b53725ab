"""A worker as an object, as the tests of the processes have it."""

from runtime.conftest import connection, make_bench, open_link, own_signals  # noqa: F401 - fixtures

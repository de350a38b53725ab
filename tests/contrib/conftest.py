"""A worker as an object, as the tests of the processes have it."""

from runtime.conftest import (  # noqa: F401 - fixtures
    connection,
    link_seconds,
    link_url,
    links,
    make_bench,
    open_link,
    own_signals,
)

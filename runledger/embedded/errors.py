"""What can go wrong around the embedded server, one class for each thing a developer can act on.

The texts carry paths and the server's own start-up lines: this server belongs to the person who reads them.
"""

from runledger.core.errors import ConfigurationError, ConflictError, UnavailableError


class EmbeddedUnavailable(UnavailableError):
    """No usable PostgreSQL binaries were found, or the machine does not let us run them."""

    code = "embedded.unavailable"


class EmbeddedVersionMismatch(ConfigurationError):
    """The data directory was made by another major version of PostgreSQL; nothing in it was touched."""

    code = "embedded.version_mismatch"


class EmbeddedStartFailed(UnavailableError):
    """The server did not become ready; the message ends with the last lines of its log."""

    code = "embedded.start_failed"


class EmbeddedStopFailed(UnavailableError):
    """The server was told to stop and still runs."""

    code = "embedded.stop_failed"


class EmbeddedNotRunning(UnavailableError):
    """There is no running server at this place, so there is no URL."""

    code = "embedded.not_running"


class EmbeddedInUse(ConflictError):
    """Another process uses this server or is changing its state right now."""

    code = "embedded.in_use"

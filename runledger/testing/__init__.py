"""For tests of Runledger and of applications that use it: servers, databases and environments that clean up."""

from runledger.testing.databases import (
    directory_checksum,
    drop_abandoned_databases,
    ephemeral_database,
    migrated_template,
)
from runledger.testing.environment import scoped_environment
from runledger.testing.server_choice import NoTestDatabase, test_server

__all__ = [
    "test_server",
    "ephemeral_database",
    "migrated_template",
    "directory_checksum",
    "drop_abandoned_databases",
    "scoped_environment",
    "NoTestDatabase",
]

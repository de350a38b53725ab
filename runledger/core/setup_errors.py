"""What a person has to set right before anything works: server, schema, settings, the import of the application."""

from runledger.core.error_tree import ConfigurationError

__all__ = [
    "UnsupportedServer",
    "InvalidDatabaseUrl",
    "SchemaMissing",
    "SchemaBehind",
    "SchemaAhead",
    "SchemaChanged",
    "ConstraintNotValidated",
    "InvalidConfiguration",
    "AppNotImportable",
]


class UnsupportedServer(ConfigurationError):
    """PostgreSQL is older than 14."""

    code = "db.unsupported_version"


class InvalidDatabaseUrl(ConfigurationError):
    """The database URL does not parse; the text never repeats it."""

    code = "db.invalid_url"


class SchemaMissing(ConfigurationError):
    """The database has no schema of Runledger; ``runledger migrate`` makes it."""

    code = "schema.missing"


class SchemaBehind(ConfigurationError):
    """Migrations of this package are not applied yet; ``runledger migrate`` applies them."""

    code = "schema.behind"


class SchemaAhead(ConfigurationError):
    """The database has a migration that this package does not know: a newer release migrated it."""

    code = "schema.ahead"


class SchemaChanged(ConfigurationError):
    """A migration that was applied differs from the one in this package."""

    code = "schema.changed"


class ConstraintNotValidated(ConfigurationError):
    """A constraint the library relies on is missing or was never validated."""

    code = "schema.constraint_not_validated"


class InvalidConfiguration(ConfigurationError):
    """A setting does not parse or is outside its limits; the message names the variable or option."""

    code = "config.invalid_value"


class AppNotImportable(ConfigurationError):
    """``MODULE:ATTR`` cannot be imported; the message carries the true exception and its line."""

    code = "config.app_not_importable"

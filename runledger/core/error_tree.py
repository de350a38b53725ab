"""The root of every error and its seven branches. What a caller can do about an error follows from its branch; the
whole tree is drawn in ``errors.py``.
"""

from typing import ClassVar

__all__ = [
    "RunledgerError",
    "ConflictError",
    "ValidationError",
    "NotFoundError",
    "ForbiddenError",
    "UnavailableError",
    "ConfigurationError",
    "InternalError",
]


class RunledgerError(Exception):
    """The root. ``code`` is stable across releases; ``hint`` names what helps, when something does."""

    code: ClassVar[str] = "runledger.error"
    category: ClassVar[str] = "internal"

    def __init__(self, message: str, internal_message: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.internal_message = internal_message
        self.hint = hint

    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, message={str(self)!r})"


class ConflictError(RunledgerError):
    code: ClassVar[str] = "runledger.conflict"
    category: ClassVar[str] = "conflict"


class ValidationError(RunledgerError):
    code: ClassVar[str] = "runledger.invalid"
    category: ClassVar[str] = "validation"


class NotFoundError(RunledgerError):
    code: ClassVar[str] = "runledger.not_found"
    category: ClassVar[str] = "not_found"


class ForbiddenError(RunledgerError):
    code: ClassVar[str] = "runledger.forbidden"
    category: ClassVar[str] = "forbidden"


class UnavailableError(RunledgerError):
    code: ClassVar[str] = "runledger.unavailable"
    category: ClassVar[str] = "unavailable"


class ConfigurationError(RunledgerError):
    code: ClassVar[str] = "runledger.configuration"
    category: ClassVar[str] = "configuration"


class InternalError(RunledgerError):
    code: ClassVar[str] = "runledger.internal"
    category: ClassVar[str] = "internal"

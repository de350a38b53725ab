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
    """The root. ``code`` is stable across releases; ``hint`` names what helps, when something does, and is the
    note below the error in a traceback."""

    code: ClassVar[str] = "runledger.error"
    category: ClassVar[str] = "internal"

    def __init__(self, message: str, internal_message: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.internal_message = internal_message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, message={str(self)!r})"


class ConflictError(RunledgerError):
    """The stored state disagrees with the request: nothing was written, and reading the state again may help."""

    code: ClassVar[str] = "runledger.conflict"
    category: ClassVar[str] = "conflict"


class ValidationError(RunledgerError):
    """The request is wrong as it stands: nothing was written, and the same request fails again."""

    code: ClassVar[str] = "runledger.invalid"
    category: ClassVar[str] = "validation"


class NotFoundError(RunledgerError):
    """What the request names does not exist, or not in the given scope; the answer does not say which."""

    code: ClassVar[str] = "runledger.not_found"
    category: ClassVar[str] = "not_found"


class ForbiddenError(RunledgerError):
    """The caller does not hold the right that it needs: a lease, a grant, a confirmation. Nothing was written."""

    code: ClassVar[str] = "runledger.forbidden"
    category: ClassVar[str] = "forbidden"


class UnavailableError(RunledgerError):
    """The database cannot be used now, or did not answer in time; the same call may succeed later."""

    code: ClassVar[str] = "runledger.unavailable"
    category: ClassVar[str] = "unavailable"


class ConfigurationError(RunledgerError):
    """The program or its database is set up wrongly, and a person has to change something; ``hint`` says what."""

    code: ClassVar[str] = "runledger.configuration"
    category: ClassVar[str] = "configuration"


class InternalError(RunledgerError):
    """Stored data or the library contradicts itself: a defect, or rows that somebody wrote past the library."""

    code: ClassVar[str] = "runledger.internal"
    category: ClassVar[str] = "internal"

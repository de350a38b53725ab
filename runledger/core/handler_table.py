"""Which handler runs a job type: found by the type, or by the function or object it was registered from.

Middleware stands around every handler of a table, whichever of the two was named first.
"""

from collections.abc import Hashable
from dataclasses import replace

from runledger.core.definitions import HOOK_SUFFIX, JobDefinition
from runledger.core.errors import DuplicateJobType, UnknownJobType
from runledger.core.gate import IDENTIFIER_LIMIT, check_identifier, clean_text
from runledger.core.handlers import DeadLetterHook, RegisteredHandler, check_callable, hook_handler
from runledger.core.middleware import Middleware, MiddlewareChain
from runledger.core.payloads import payload_type_of


class HandlerTable:
    """The handlers of one catalog. A type is added once and never taken out."""

    def __init__(self) -> None:
        self._by_type: dict[str, RegisteredHandler] = {}
        self._types_by_source: dict[Hashable, list[str]] = {}
        self._middleware = MiddlewareChain()

    @property
    def job_types(self) -> tuple[str, ...]:
        """Every type, sorted, with those of dead-letter hooks."""
        return tuple(sorted(self._by_type))

    @property
    def middleware(self) -> tuple[Middleware, ...]:
        """What is in use, the outermost first."""
        return self._middleware.as_tuple

    def __contains__(self, job_type: object) -> bool:
        return isinstance(job_type, str) and job_type in self._by_type

    def by_type(self, job_type: str) -> RegisteredHandler:
        """What runs this type. Raises UnknownJobType."""
        try:
            return self._by_type[job_type]
        except (KeyError, TypeError):
            names = ", ".join(self.job_types) or "none"
            asked = clean_text(job_type, IDENTIFIER_LIMIT)
            raise UnknownJobType(f"the catalog has no job of type {asked!r}", hint="job types: " + names) from None

    def by_source(self, source: object) -> RegisteredHandler:
        """What was registered from this function or object. Raises UnknownJobType unless that is exactly one type."""
        job_types = self._types_by_source.get(_reference(source), [])
        if len(job_types) != 1:
            reason = "several job types" if job_types else "no job type"
            raise UnknownJobType(f"this function is registered under {reason} of the catalog")
        return self._by_type[job_types[0]]

    def add(self, definition: JobDefinition, execute: object, hook: DeadLetterHook | None, *, source: object) -> None:
        """The type and, with a hook, its internal type are there; on any refusal neither is. Raises InvalidHandler,
        InvalidIdentifier or DuplicateJobType."""
        job_type = definition.job_type
        call = check_callable(execute, arity=2, name=f"the handler of {job_type}")
        handler = RegisteredHandler(job_type, call, payload_type_of(call), definition)
        added = [handler]
        if hook is not None:
            check_callable(hook, arity=3, name=f"on_dead_letter of {job_type}")
            check_identifier(
                job_type, field="job_type with on_dead_letter", limit_bytes=IDENTIFIER_LIMIT - len(HOOK_SUFFIX)
            )
            definition = replace(definition, has_dead_letter_hook=True)
            added = [replace(handler, definition=definition, on_dead_letter=hook), hook_handler(handler, hook)]
        for one in added:
            self.refuse_duplicate(one.job_type)
        if self.middleware:
            added = [self._surrounded(one) for one in added]
        self._by_type.update((one.job_type, one) for one in added)
        self._types_by_source.setdefault(_reference(source), []).append(job_type)

    def refuse_duplicate(self, job_type: str) -> None:
        """Raises DuplicateJobType when the type is there."""
        if job_type in self._by_type:
            raise DuplicateJobType(f"the catalog already has a handler for {job_type}")

    def redefine(self, definition: JobDefinition) -> None:
        """The handler of its type stays and has this definition."""
        self._by_type[definition.job_type] = replace(self.by_type(definition.job_type), definition=definition)

    def use(self, middleware: Middleware) -> None:
        """It stands around every handler, inside of what is in use already. Raises InvalidConfiguration."""
        is_first = not self.middleware
        self._middleware.add(middleware)
        if is_first:
            self._by_type = {job_type: self._surrounded(one) for job_type, one in self._by_type.items()}

    def _surrounded(self, handler: RegisteredHandler) -> RegisteredHandler:
        return replace(handler, call=self._middleware.surround(handler.call))


def _reference(source: object) -> Hashable:
    """The handler itself, so that bound methods compare equal; its identity when it cannot be hashed. The table
    holds what was registered, so an identity is not given away again."""
    try:
        hash(source)
    except TypeError:
        return id(source)
    return source

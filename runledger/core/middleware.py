"""Middleware: code around every enqueue and every attempt, without a word in any handler.

One middleware sees a job three times: in the process that enqueues it, around each of its attempts in a worker, and
when the outcome of an attempt is stored. What must travel from the first to the others goes into the job's headers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

from runledger.core.context import JobContext
from runledger.core.errors import InvalidConfiguration, InvalidRequest
from runledger.core.headers import Headers
from runledger.core.requests import JobRequest
from runledger.core.states import JobStatus, Outcome
from runledger.core.workflows import WorkflowRunRequest

Call = Callable[[JobContext, Any], Any]


@dataclass(frozen=True, slots=True)
class SettledAttempt:
    """An attempt whose outcome is committed. ``final_status`` is None while the job goes on: then it runs again after
    ``retry_seconds`` (None: at once). ``seconds`` is how long the handler ran, ``waited_seconds`` how long the job
    had been due when it was claimed. ``headers`` that somebody stored past the gate read as none.
    """

    job_id: UUID
    job_type: str
    run_number: int
    attempt: int
    max_attempts: int
    lease_token: int
    worker_id: str
    organization_id: UUID | None
    workflow_run_id: UUID | None
    headers: Headers
    outcome: Outcome
    final_status: JobStatus | None
    status_reason: str | None
    error_code: str | None
    error_message: str | None
    retry_seconds: float | None
    seconds: float
    waited_seconds: float


class Middleware:
    """Override what you need. One object serves a whole process, in several threads where jobs are enqueued: keep no
    state about one job in it."""

    def on_enqueue(self, request: JobRequest) -> JobRequest:
        """Called before the request is checked and written, in the caller's thread and transaction. Answers with the
        request or a copy, with other ``headers`` for example. What it raises refuses the enqueue: nothing is written.
        """
        return request

    def on_enqueue_batch(self, requests: Sequence[JobRequest]) -> Sequence[JobRequest]:
        """Called once for each enqueue, of one job or of many; answers with as many requests in the same order. By
        itself it asks ``on_enqueue`` about each."""
        return [self.on_enqueue(request) for request in requests]

    def on_enqueue_run(self, request: WorkflowRunRequest) -> WorkflowRunRequest:
        """The same for a workflow run. The headers of its answer are those of every job of the run, also of steps that
        are appended later and of runs that run it again; its steps meet no ``on_enqueue``."""
        return request

    def around_attempt(self, context: JobContext, payload: Any, proceed: Callable[[], Any]) -> Any:
        """Called in place of the handler: ``proceed()`` goes on, inwards to the next middleware and at last to the
        handler. Call it once, return its value, and let its exceptions pass.

        The attempt is what comes out here. Whatever is raised fails it as if the handler had raised it; another value
        is its output; after a swallowed exception it has succeeded. Timeout and cancellation are raised in here as
        they are in handlers.
        """
        return proceed()

    def on_settled(self, attempt: SettledAttempt) -> None:
        """Called in the worker, between two attempts, after the outcome of one was committed. At most once: not for an
        attempt whose process was killed, that was cancelled, or that lost its lease. An exception is logged."""

    def on_worker_exit(self) -> None:
        """Called in a worker that ends in good order, after its last outcome was written. An exception is logged."""


_FOR_ENQUEUES: Final[list[Middleware]] = []


def use_for_enqueues(middleware: Middleware) -> None:
    """Every enqueue of jobs and runs in this process meets ``middleware`` from now on, after those named
    before it. Naming the same object again changes nothing. Raises InvalidConfiguration unless it is a Middleware."""
    _add_once(_FOR_ENQUEUES, middleware)


def no_longer_for_enqueues(middleware: Middleware) -> None:
    """Undoes ``use_for_enqueues``; for tests. Nothing happens when it was not in use."""
    _FOR_ENQUEUES[:] = [one for one in _FOR_ENQUEUES if one is not middleware]


def _add_once(chain: list[Middleware], middleware: Middleware) -> None:
    if not isinstance(middleware, Middleware):
        raise InvalidConfiguration("a middleware is an object whose class derives from runledger.Middleware")
    if not any(one is middleware for one in chain):
        chain.append(middleware)


def announced(requests: Sequence[JobRequest]) -> Sequence[JobRequest]:
    """The requests as they are to be written, after the middleware of the process and then those of the catalogs they
    were made by; each sees a request once. Raises what a middleware raises, InvalidRequest for a wrong answer or for
    what is no request."""
    for request in requests:
        if not isinstance(request, JobRequest):
            raise InvalidRequest(
                f"a job to enqueue must be a JobRequest, not {type(request).__name__}",
                hint="JobRequest(job_type, payload) makes one, and so does catalog.request(job_type, payload)",
            )
    chain = _chain_of(requests)
    made = list(requests)
    for middleware in chain:
        is_for_all = any(one is middleware for one in _FOR_ENQUEUES)
        places = [
            place
            for place, request in enumerate(requests)
            if is_for_all or any(one is middleware for one in request.middleware)
        ]
        answers = middleware.on_enqueue_batch([made[place] for place in places])
        if len(answers) != len(places) or not all(isinstance(answer, JobRequest) for answer in answers):
            raise InvalidRequest(f"{type(middleware).__name__} must answer each JobRequest with a JobRequest")
        for place, answer in zip(places, answers, strict=True):
            made[place] = answer
    return made if chain else requests


def announced_run(request: WorkflowRunRequest) -> WorkflowRunRequest:
    """The same for a workflow run."""
    if not isinstance(request, WorkflowRunRequest):
        raise InvalidRequest(
            f"a run to enqueue must be a WorkflowRunRequest, not {type(request).__name__}",
            hint="catalog.workflow(workflow_type) begins one",
        )
    for middleware in _chain_of((request,)):
        request = middleware.on_enqueue_run(request)
        if not isinstance(request, WorkflowRunRequest):
            raise InvalidRequest(f"{type(middleware).__name__} must answer a WorkflowRunRequest with one")
    return request


def _chain_of(requests: Sequence[JobRequest] | Sequence[WorkflowRunRequest]) -> list[Any]:
    chain: list[Any] = list(_FOR_ENQUEUES)
    last: object = ()
    for request in requests:
        if request.middleware is not last:  # requests of one catalog share one tuple
            last = request.middleware
            chain += [one for one in request.middleware if not any(one is known for known in chain)]
    return chain


class MiddlewareChain:
    """What a catalog uses, in order: the first is the outermost."""

    def __init__(self) -> None:
        self._all: list[Middleware] = []
        self.as_tuple: tuple[Middleware, ...] = ()
        self._around: tuple[Middleware, ...] = ()

    def add(self, middleware: Middleware) -> None:
        """It is the innermost from now on; naming the same object again changes nothing."""
        _add_once(self._all, middleware)
        self.as_tuple = tuple(self._all)
        self._around = tuple(one for one in self._all if type(one).around_attempt is not Middleware.around_attempt)

    def surround(self, call: Call) -> Call:
        """``call`` with the whole chain around it, also with what joins the chain later."""

        def surrounded(context: JobContext, payload: Any) -> Any:
            proceed: Callable[[], Any] = partial(call, context, payload)
            for middleware in reversed(self._around):
                proceed = partial(middleware.around_attempt, context, payload, proceed)
            return proceed()

        return surrounded

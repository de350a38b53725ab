"""The processes' own work, cut at every point: each request to the server once not sent, each answer once lost, and
every kind of broken network, while a worker, a keeper, a reaper, a scheduler or an application is at it.

Each is an object in this process whose connections pass a proxy. It may say that the database is not there, and nothing
else; it works again as soon as the network does; and then every job has ended once, with one effect.
"""

import time

import pytest
from chaos.nemesis import Fault
from chaos.proxy import Proxy
from runtime.networks import through
from runtime.scenes import (
    IS_WHOLE,
    REACTION_SECONDS,
    SCENES,
    SESSIONS,
    TIMEOUT_SECONDS,
    Stage,
    empty,
    finish,
    keep_at_it,
)

from runledger import UnavailableError

EVERY_NTH_POINT = 1 if IS_WHOLE else 4
MOST_POINTS = 60
FAULTS: list[Fault | str] = [*Fault, "TERMINATE", "CANCEL"]


@pytest.fixture
def link_url(database_url: str, proxy: Proxy) -> str:
    """Everybody's way to the database."""
    return through(proxy, database_url)


@pytest.fixture
def link_seconds() -> float:
    return TIMEOUT_SECONDS


@pytest.mark.parametrize("side", ["cut_request", "cut_answer"])
@pytest.mark.parametrize("name", SCENES)
def test_a_cut_at_any_point_loses_nothing_and_does_nothing_twice(stage: Stage, name: str, side: str) -> None:
    """Every request, and every answer, once; first it is counted how many there are."""
    prepare, jobs = SCENES[name]
    work = prepare(stage)
    stage.proxy.count_from_here()
    keep_at_it(work)
    points = stage.proxy.requests if side == "cut_request" else stage.proxy.answers
    finish(stage, jobs)

    assert 0 < points < MOST_POINTS
    for point in range(1, points + 1, EVERY_NTH_POINT):
        empty(stage)
        work = prepare(stage)
        stage.proxy.count_from_here(**{side: point})
        keep_at_it(work)
        stage.proxy.count_from_here()
        finish(stage, jobs)


@pytest.mark.parametrize("fault", FAULTS if IS_WHOLE else [Fault.CUT, Fault.BLACK_HOLE, "TERMINATE"])
@pytest.mark.parametrize("name", SCENES if IS_WHOLE else ["a worker", "a keeper", "a scheduler"])
def test_a_broken_network_is_told_soon_and_left_behind(stage: Stage, name: str, fault: Fault | str) -> None:
    prepare, jobs = SCENES[name]
    work = prepare(stage)

    _break(stage, fault)
    began_at = time.monotonic()
    try:
        work()
    except UnavailableError:
        pass
    except Exception as error:
        raise AssertionError(f"told by a {type(error).__name__}") from error
    assert time.monotonic() - began_at < REACTION_SECONDS
    stage.proxy.heal()

    keep_at_it(work)
    finish(stage, jobs)


def _break(stage: Stage, fault: Fault | str) -> None:
    if isinstance(fault, Fault):
        stage.proxy.break_by(fault)
        return
    act = "pg_terminate_backend" if fault == "TERMINATE" else "pg_cancel_backend"
    for (pid,) in stage.connection.execute(SESSIONS).fetchall():
        stage.connection.execute(f"SELECT {act}(%s)", (pid,))

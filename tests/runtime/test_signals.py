"""The signal queue, and waiting on descriptors."""

import os
import resource
import signal
import time
from collections.abc import Iterator

import pytest

from runledger.runtime.signals import SignalQueue, drain, wait_for


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(read)
    os.close(write)


@pytest.fixture
def queue() -> Iterator[SignalQueue]:
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    made = SignalQueue(numbers)
    yield made
    made.close()
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_wait_ends_when_a_descriptor_is_readable_or_the_time_is_over(pipe: tuple[int, int]) -> None:
    read, write = pipe
    began_at = time.monotonic()
    assert wait_for([read], 0.05) == []
    assert time.monotonic() - began_at >= 0.045
    os.write(write, b"x")

    assert wait_for([read], 10.0) == [read]
    assert drain(read)
    assert not drain(read)


def test_a_wait_serves_descriptors_beyond_the_reach_of_select(pipe: tuple[int, int]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2_100:
        pytest.skip("this process may not open that many descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_100), hard))
    try:
        high = os.dup2(pipe[0], 2_000)
        os.write(pipe[1], b"x")
        assert wait_for([high], 10.0) == [high]
        os.close(high)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_signals_are_queued_in_their_order_and_none_overwrites_another(queue: SignalQueue) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
        os.kill(os.getpid(), number)

    assert wait_for([queue.fileno()], 10.0) == [queue.fileno()]
    assert queue.take() == [signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1]
    assert queue.take() == []
    assert {signal.SIGUSR1, signal.SIGUSR2} <= queue.seen

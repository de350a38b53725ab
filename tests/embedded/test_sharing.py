"""One server for many processes: the last user stops it, a killed one does not keep it alive."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from embedded.conftest import SHARE, StartProgram, finish, first_line

from runledger.embedded import TEST_SETTINGS, EmbeddedInUse, EmbeddedServer, ServerState, running_server

SHARE_UNTIL_EXIT = """
context = running_server(home, TEST_SETTINGS)
server = context.__enter__()
print(server.status().pid, flush=True)
sys.exit(0)
"""

FAIL_INSIDE = """
with running_server(home, TEST_SETTINGS) as server:
    raise ValueError("on purpose")
"""

FORK_INSIDE = """
with running_server(home, TEST_SETTINGS) as server:
    child = os.fork()
    if child == 0:
        sys.exit(0)  # unwinds the child's copy of the block
    print(os.waitpid(child, 0)[1], server.status().state)
"""


def state(home: Path) -> ServerState:
    return EmbeddedServer(home).status().state


def test_two_processes_share_one_server_and_the_last_one_stops_it(home: Path, start_program: StartProgram) -> None:
    first, second = start_program(SHARE, home), start_program(SHARE, home)
    assert first_line(first) == first_line(second)

    finish(first)
    assert state(home) is ServerState.RUNNING
    finish(second)
    assert state(home) is ServerState.STOPPED


def test_a_killed_user_does_not_keep_the_server_running(home: Path, start_program: StartProgram) -> None:
    killed, last = start_program(SHARE, home), start_program(SHARE, home)
    first_line(killed)
    first_line(last)

    killed.kill()
    killed.wait()
    assert state(home) is ServerState.RUNNING
    finish(last)

    assert state(home) is ServerState.STOPPED


def test_stop_ends_what_a_killed_user_left_behind(home: Path, start_program: StartProgram) -> None:
    killed = start_program(SHARE, home)
    first_line(killed)
    killed.kill()
    killed.wait()

    assert not EmbeddedServer(home).status().is_in_use
    assert EmbeddedServer(home).stop(even_if_in_use=False)


def test_sigterm_of_the_last_user_stops_the_server(home: Path, start_program: StartProgram) -> None:
    program = start_program(SHARE, home)
    first_line(program)
    program.terminate()
    assert program.wait(timeout=30) == 128 + signal.SIGTERM
    assert state(home) is ServerState.STOPPED


def test_an_exit_without_leaving_the_block_stops_the_server(home: Path, start_program: StartProgram) -> None:
    finish(start_program(SHARE_UNTIL_EXIT, home))
    assert state(home) is ServerState.STOPPED


def test_an_error_inside_the_block_stops_the_server(home: Path, start_program: StartProgram) -> None:
    program = start_program(FAIL_INSIDE, home)
    assert "on purpose" in program.communicate()[1]
    assert state(home) is ServerState.STOPPED


def test_a_server_that_was_started_to_stay_outlives_its_users(home: Path) -> None:
    with running_server(home, TEST_SETTINGS):
        EmbeddedServer(home).start()
    assert state(home) is ServerState.RUNNING
    with running_server(home):
        pass
    assert state(home) is ServerState.RUNNING
    assert EmbeddedServer(home).status().keep_running


def test_a_start_is_not_remembered_after_a_stop(home: Path) -> None:
    server = EmbeddedServer(home, TEST_SETTINGS)
    server.start()
    server.stop()
    with running_server(home, TEST_SETTINGS):
        pass
    assert state(home) is ServerState.STOPPED


def test_two_blocks_in_one_process_count_as_two_users(home: Path) -> None:
    with running_server(home, TEST_SETTINGS) as outer:
        with running_server(home, TEST_SETTINGS) as inner:
            assert inner.url() == outer.url()
        assert state(home) is ServerState.RUNNING
    assert state(home) is ServerState.STOPPED


def test_a_forked_child_that_leaves_the_block_does_not_stop_the_server(home: Path, start_program: StartProgram) -> None:
    assert finish(start_program(FORK_INSIDE, home)) == "0 running"
    assert state(home) is ServerState.STOPPED


def test_a_server_in_use_is_not_stopped_without_force(home: Path) -> None:
    with running_server(home, TEST_SETTINGS), pytest.raises(EmbeddedInUse):
        EmbeddedServer(home).stop(even_if_in_use=False)


def test_the_signal_handler_of_the_process_is_left_alone(home: Path) -> None:
    def own_handler(*_: object) -> None:
        pass

    before = signal.signal(signal.SIGTERM, own_handler)
    try:
        with running_server(home, TEST_SETTINGS):
            assert signal.getsignal(signal.SIGTERM) is own_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_default_of_sigterm_is_back_after_the_block(home: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with running_server(home, TEST_SETTINGS):
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_started_program_does_not_inherit_the_lock(home: Path) -> None:
    with running_server(home, TEST_SETTINGS) as server:
        program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        assert not server.status().is_in_use
        assert state(home) is ServerState.STOPPED
    finally:
        program.communicate(b"\n")

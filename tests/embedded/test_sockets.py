"""Where a server listens: the same place after each start, and never one that somebody else may have prepared."""

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runledger.embedded import TEST_SETTINGS, EmbeddedServer
from runledger.embedded.owner import server_owner
from runledger.embedded.places import Place
from runledger.embedded.sockets import LONGEST_SOCKET_DIRECTORY, make_socket_directory, remove_socket_directory

OWNER = server_owner()


@pytest.fixture
def place(directory: Path) -> Place:
    return Place(directory)


@pytest.fixture
def deep_place(directory: Path) -> Iterator[Place]:
    """A place whose path is too long for a socket; what was made for it elsewhere is gone afterwards."""
    root = directory / ("long" * 30)
    root.mkdir()
    yield Place(root)
    remove_socket_directory(str(make_socket_directory(Place(root), OWNER)), OWNER)


def test_an_exported_url_is_still_true_after_a_stop_a_kill_and_a_reset(home: Path) -> None:
    server = EmbeddedServer(home, TEST_SETTINGS)
    exported = server.start()
    server.stop()

    assert server.start() == exported
    pid = server.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert server.start() == exported
    server.destroy()
    assert server.start() == exported
    with psycopg.connect(exported) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_it_lies_beside_the_data_and_belongs_to_the_server_alone(place: Place) -> None:
    made = make_socket_directory(place, OWNER)

    assert made.parent == place.root
    assert (made.stat().st_uid, stat.S_IMODE(made.stat().st_mode)) == (OWNER.uid, 0o700)
    assert list(made.iterdir()) == []
    assert make_socket_directory(place, OWNER) == made


def test_what_a_killed_server_left_is_cleared_away(place: Place) -> None:
    made = make_socket_directory(place, OWNER)
    (made / ".s.PGSQL.5432.lock").write_text("1\n")

    assert make_socket_directory(place, OWNER) == made
    assert list(made.iterdir()) == []


def test_a_path_too_long_for_a_socket_gets_a_lasting_name_that_no_other_path_gets(deep_place: Place) -> None:
    other = Place(deep_place.root / "other")
    other.root.mkdir()

    made = make_socket_directory(deep_place, OWNER)
    made_for_other = make_socket_directory(other, OWNER)
    remove_socket_directory(str(made_for_other), OWNER)

    assert len(os.fsencode(made)) <= LONGEST_SOCKET_DIRECTORY
    assert made_for_other != made
    assert make_socket_directory(deep_place, OWNER) == made


def test_a_link_or_a_file_in_its_place_is_left_alone_and_not_used(place: Place, directory: Path) -> None:
    theirs = directory / "theirs"
    theirs.mkdir()
    (theirs / "kept").touch()
    wanted = place.root / "runledger-socket"
    for prepare in (lambda: wanted.symlink_to(theirs), wanted.touch):
        prepare()

        made = make_socket_directory(place, OWNER)
        remove_socket_directory(str(made), OWNER)

        assert made != wanted
        assert [one.name for one in theirs.iterdir()] == ["kept"]
        wanted.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of another user")
def test_a_directory_of_another_user_in_its_place_is_left_alone_and_not_used(place: Place) -> None:
    wanted = place.root / "runledger-socket"
    wanted.mkdir(mode=0o777)
    os.chown(wanted, 4_711, 4_711)

    made = make_socket_directory(place, OWNER)
    remove_socket_directory(str(made), OWNER)

    assert made != wanted
    assert wanted.stat().st_uid == 4_711


def test_a_directory_in_which_somebody_listens_is_never_shared(home: Path) -> None:
    server = EmbeddedServer(home, TEST_SETTINGS)
    url = server.start()

    made = make_socket_directory(server.place, OWNER)
    remove_socket_directory(str(made), OWNER)

    assert made != server.place.root / "runledger-socket"
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)

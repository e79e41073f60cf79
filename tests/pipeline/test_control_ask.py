"""The side that asks: a node that is not there, hangs, is overrun or ends in mid-answer."""

import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from scp.errors import NodeError
from scp.pipeline.control import ask

SECONDS = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control"


def test_without_a_node_nobody_answers(path: Path) -> None:
    assert ask(path, {}) is None
    assert ask(path.parent / "no such folder" / "control", {}) is None
    path.touch()
    assert ask(path, {}) is None


def test_a_node_that_does_not_answer_in_time_is_said_to_be_there(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()

        with pytest.raises(NodeError, match=f"the node did not answer on {path}"):
            ask(path, {}, seconds=0.05)


def test_a_node_that_more_clients_wait_for_than_may_is_said_to_be_there(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, ExitStack() as waiting:
        busy.bind(str(path))
        busy.listen(0)
        first = waiting.enter_context(socket.socket(socket.AF_UNIX))
        first.connect(str(path))

        with pytest.raises(NodeError, match=f"the node cannot be asked on {path}: too many others"):
            ask(path, {}, seconds=0.05)


def test_room_to_ask_is_waited_for(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(path))
        busy.listen(0)
        first.connect(str(path))

        def answer_the_second() -> None:
            busy.accept()[0].close()
            with busy.accept()[0] as second:
                second.recv(4096)
                second.sendall(b'{"ok": {"at": "last"}}\n')

        timer = threading.Timer(0.2, answer_the_second)
        timer.start()
        answer = ask(path, {}, SECONDS)
        timer.join(SECONDS)

    assert answer == {"at": "last"}


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b"nothing of the kind\n", b"5\n", b"[]\n", b"{}\n", b'{"ok": 5}\n', b"null\n"],
    ids=str,
)
def test_a_node_that_ends_in_mid_answer_is_an_error_and_no_answer(
    path: Path, answer: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(path))
        dying.listen()

        def die() -> None:
            client, _ = dying.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=die)
        thread.start()
        with pytest.raises(NodeError, match="did not answer"):
            ask(path, {})
        thread.join(SECONDS)

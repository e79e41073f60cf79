"""The control socket, asked by clients of every kind of manners."""

import json
import logging
import resource
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from scp.errors import NodeError
from scp.pipeline.control import ControlServer, Reply, Request, ask

SECONDS = 20.0

type Serve = Callable[..., ControlServer]


def echo(request: Request) -> Reply:
    return {"asked": request}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control"


@pytest.fixture
def serve(path: Path) -> Iterator[Serve]:
    with ExitStack() as servers:

        def start(
            handle: Callable[[Request], Reply] = echo, peer_seconds: float = 5.0
        ) -> ControlServer:
            server = ControlServer(path, handle, peer_seconds=peer_seconds)
            servers.callback(server.stop)
            return server

        yield start
    assert not path.exists()
    assert "control" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def connect(path: Path) -> Iterator[Callable[[], socket.socket]]:
    with ExitStack() as clients:

        def connect() -> socket.socket:
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(SECONDS)
            client.connect(str(path))
            return client

        yield connect


def answer_to(client: socket.socket, request: bytes) -> Any:
    client.sendall(request)
    return answer_of(client)


def answer_of(client: socket.socket) -> Any:
    with client.makefile("rb") as answers:
        return json.loads(answers.readline())


# -- a good day ------------------------------------------------------------------------------------


def test_a_request_gets_its_answer(serve: Serve, path: Path) -> None:
    serve()

    assert ask(path, {"command": "held", "job": "ä\n"}) == {
        "asked": {"command": "held", "job": "ä\n"}
    }


def test_an_answer_may_be_longer_than_a_request(serve: Serve, path: Path) -> None:
    serve(lambda request: {"jobs": ["job"] * 500_000})

    answer = ask(path, {})

    assert answer is not None
    assert len(answer["jobs"]) == 500_000


def test_only_the_user_of_the_node_may_ask(serve: Serve, path: Path) -> None:
    serve()

    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_socket_may_lie_deeper_than_a_socket_address_is_long(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 100) / ("b" * 100)
    folder.mkdir(parents=True)
    server = ControlServer(folder / "control", echo)
    try:
        assert ask(folder / "control", {"a": 1}) == {"asked": {"a": 1}}
    finally:
        server.stop()


def test_what_a_node_that_was_killed_has_left_is_replaced(serve: Serve, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert ask(path, {}) is None

    serve()

    assert ask(path, {"a": 1}) == {"asked": {"a": 1}}


# -- requests that are none ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        b"\n",
        b"status\n",
        b"\xff\xfe\n",
        b"[1, 2]\n",
        b'"status"\n',
        b"null\n",
        b"[" * 100_000 + b"\n",
        b'{"a": "' + b"x" * 2**20 + b'"}\n',
        b"5\n",
        b'{"a": ' + b"[" * 100_000 + b"\n",
        b'{"command": ' + b"[" * 900 + b"]" * 900 + b"}\n",
        b'{"command": "held", "job": ["a"]}\n',
        b'{"command": "retry", "jobs": 5}\n',
        b'{"command": "retry", "jobs": "job-1"}\n',
        b'{"command": "retry", "jobs": [["job-1"]]}\n',
        b'{"command": "discard"}\n',
        b'{"command": "discard", "job": "", "reason": "x"}\n',
        b'{"command": "discard", "job": "a", "reason": {}}\n',
    ],
    ids=[
        *("empty", "no JSON", "no text", "list", "string", "null", "nested", "too long"),
        *("number", "nested value", "nested command", "list of jobs", "number of jobs"),
        *("text of jobs", "jobs nested", "discard nothing", "discard no name", "reason no text"),
    ],
)
def test_what_is_no_request_is_refused_by_a_message_and_costs_no_traceback(
    serve: Serve,
    connect: Callable[[], socket.socket],
    caplog: pytest.LogCaptureFixture,
    path: Path,
    request_: bytes,
) -> None:
    serve()

    answer = answer_to(connect(), request_)

    assert answer["error"].startswith("no request that this node understands")
    assert caplog.records == []
    assert ask(path, {"a": 1}) == {"asked": {"a": 1}}


def test_a_request_without_its_newline_is_one_when_the_client_says_no_more(
    serve: Serve, connect: Callable[[], socket.socket]
) -> None:
    serve()
    client = connect()
    client.sendall(b'{"a": 1}')
    client.shutdown(socket.SHUT_WR)

    assert answer_of(client) == {"ok": {"asked": {"a": 1}}}


# -- errors of what answers ------------------------------------------------------------------------


def test_what_cannot_be_done_is_said_in_the_words_of_the_node(serve: Serve, path: Path) -> None:
    def refuse(request: Request) -> Reply:
        raise NodeError("no job job-1 is held")

    serve(refuse)

    with pytest.raises(NodeError, match=r"^no job job-1 is held$"):
        ask(path, {})


@pytest.mark.parametrize(
    "handle",
    [lambda request: request["no such key"], lambda request: int("x"), lambda request: {"a": {1}}],
    ids=["KeyError", "ValueError", "an answer that is no JSON"],
)
def test_a_defect_is_logged_answered_and_survived(
    serve: Serve,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    handle: Callable[[Request], Reply],
) -> None:
    serve(lambda request: handle(request) if request else {"fine": True})

    with pytest.raises(NodeError, match=r"^the node could not answer; its log says why$"):
        ask(path, {"a": 1})

    (logged,) = caplog.records
    assert (logged.levelno, bool(logged.exc_info)) == (logging.ERROR, True)
    assert ask(path, {}) == {"fine": True}


# -- clients that hang or leave --------------------------------------------------------------------


def test_a_client_that_leaves_before_its_answer_harms_nobody(
    serve: Serve,
    connect: Callable[[], socket.socket],
    caplog: pytest.LogCaptureFixture,
    path: Path,
) -> None:
    has_left = threading.Event()
    serve(lambda request: {"waited": has_left.wait(SECONDS)} if request else {})
    client = connect()
    client.sendall(b'{"a": 1}\n')
    client.close()
    connect().close()

    has_left.set()

    assert ask(path, {}) == {}
    assert caplog.records == []


def test_two_clients_are_answered_one_after_the_other(serve: Serve, path: Path) -> None:
    inside: list[str] = []

    def handle(request: Request) -> Reply:
        inside.append(request["who"])
        assert len(inside) == 1
        inside.clear()
        return request

    serve(handle)
    answers: list[Reply | None] = []
    clients = [
        threading.Thread(target=lambda who=who: answers.append(ask(path, {"who": who})))
        for who in range(8)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join(SECONDS)

    assert sorted(answer["who"] for answer in answers if answer) == list(range(8))


@pytest.mark.parametrize("drip", [False, True], ids=["silent", "byte by byte"])
def test_a_client_that_does_not_come_to_its_point_keeps_the_next_waiting_for_seconds_only(
    serve: Serve,
    connect: Callable[[], socket.socket],
    caplog: pytest.LogCaptureFixture,
    path: Path,
    *,
    drip: bool,
) -> None:
    serve(peer_seconds=0.2)
    slow = connect()
    ended = threading.Event()

    def talk() -> None:
        while drip and not ended.wait(0.02):
            try:
                slow.sendall(b"[")
            except OSError:
                return

    talker = threading.Thread(target=talk)
    talker.start()
    started = time.monotonic()

    assert ask(path, {"a": 1}, seconds=SECONDS) == {"asked": {"a": 1}}

    assert time.monotonic() - started < 5
    ended.set()
    talker.join(SECONDS)
    assert caplog.records == []


def test_a_moment_without_descriptors_does_not_end_the_answers(
    serve: Serve, caplog: pytest.LogCaptureFixture, path: Path
) -> None:
    serve()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as late:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            late.connect(str(path))
            deadline = time.monotonic() + SECONDS
            while not caplog.records:
                assert time.monotonic() < deadline, "the server has a descriptor for it"
                time.sleep(0.005)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert "Too many open files" in caplog.records[0].getMessage()
    assert ask(path, {"a": 1}) == {"asked": {"a": 1}}

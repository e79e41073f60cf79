"""Whatever 200 peers send, a receiver stays within its memory, and serves others afterwards."""

import contextlib
import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from struct import pack

import pytest

from scp.commitment import PUSH_MODEL
from scp.tls import client_context
from tests.accept.raw_peer import (
    COMMAND,
    CT,
    EXPLICIT,
    LAST,
    RawPeer,
    action_command,
    associate_request,
    p_data,
    store_command,
)
from tests.buffer.spool import STUDY, Sent, element
from tests.certificates import Authority
from tests.e2e.conftest import StartNode
from tests.e2e.node import until
from tests.e2e.peers import echoscu
from tests.encodings import deflated

PEERS = 200
DEFLATED = "1.2.840.10008.1.2.1.99"
MOST_MIB = 64.0
MOST_CPU_SECONDS = 4.0
"""For 64 MiB, of which each item looked at would take three times as long."""
PEER = {"ae_title": "CT1", "report_to": {"host": "127.0.0.1", "port": 1}}


def resident_mib(pid: int, what: str = "VmRSS") -> float:
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


@functools.cache
def fat_request() -> bytes:
    """Some 900 kB of contexts, each with hundreds of syntaxes."""
    contexts = [(CT, [EXPLICIT] * 320)] * 119
    return associate_request(contexts)


def cut_request(peer: RawPeer) -> None:
    peer.send(fat_request()[:-1])


def whole_request(peer: RawPeer) -> None:
    peer.associate(fat_request())


def cut_command(peer: RawPeer) -> None:
    peer.associate()
    peer.send(p_data((1, COMMAND, bytes(16_000))))


def header_that_never_ends(peer: RawPeer) -> None:
    """A private element of 1 GiB stands before the UIDs, and the last PDU lacks a byte."""
    head = b"\x09\0\x10\x10OB\0\0\0\0\0\x40"
    peer.associate()
    peer.send(p_data((1, COMMAND | LAST, store_command())) + p_data((1, 0, head)))
    for _ in range(4):
        peer.send(p_data((1, 0, bytes(131_000))))
    peer.send(p_data((1, 0, bytes(131_000)))[:-1])


def request_for_commitment_that_never_ends(peer: RawPeer) -> None:
    """Just below what one may be, from a peer that reports could go to."""
    peer.associate(associate_request([(PUSH_MODEL, [EXPLICIT])], calling="CT1"))
    peer.send(p_data((1, COMMAND | LAST, action_command())))
    for _ in range(31):
        peer.send(p_data((1, 0, bytes(131_000))))


@pytest.mark.parametrize(
    "attack",
    [
        *(cut_request, whole_request, cut_command, header_that_never_ends),
        request_for_commitment_that_never_ends,
    ],
)
def test_the_memory_of_a_receiver_stays_within_bounds(
    node: StartNode, attack: Callable[[RawPeer], None]
) -> None:
    running = node(
        {
            "node": {"receivers": 1},
            "limits": {"max_associations_per_address": PEERS + 1, "busy_seconds": 60},
            "access": {"peers": [PEER]},
        }
    )
    assert echoscu(running.port) == 0
    (receiver,) = running.processes("scp.pipeline.receiver")
    idle = resident_mib(receiver)

    with contextlib.ExitStack() as open_peers:
        for _ in range(PEERS):
            attack(open_peers.enter_context(RawPeer(("127.0.0.1", running.port))))
        assert echoscu(running.port) == 0
        most = resident_mib(receiver)

    assert most - idle <= MOST_MIB, f"{idle:.1f} MiB idle, {most:.1f} MiB with {attack.__name__}"
    until(lambda: threads(receiver) < 20, "associations outlive their peers")
    assert echoscu(running.port) == 0
    until(lambda: running.arriving_bytes() == 0, "parts of instances outlive their peers")


def hello_that_never_ends(peer: RawPeer) -> None:
    """The longest that a server reads, in records of the greatest length, but for its last bytes."""
    hello = b"\x01\x01\xff\xff" + bytes(0x1FFFF - 100)
    for start in range(0, len(hello), 2**14):
        fragment = hello[start : start + 2**14]
        peer.send(b"\x16\x03\x01" + len(fragment).to_bytes(2, "big") + fragment)


@pytest.mark.parametrize(
    "attack",
    [header_that_never_ends, request_for_commitment_that_never_ends, hello_that_never_ends],
)
def test_the_memory_of_a_receiver_stays_within_bounds_over_tls(
    node: StartNode, tmp_path: Path, attack: Callable[[RawPeer], None]
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue()
    trusts = client_context(ca=authority.file, certificate=None, key=None, check_host=True)
    secured = {"certificate": str(certificate), "key": str(key)}
    running = node(
        {
            "node": {"receivers": 1},
            "limits": {"handshake_seconds": 120},
            "listeners": [{"port": 0, "bind": "127.0.0.1", "tls": secured}],
            "access": {"peers": [PEER]},
        }
    )

    def secure(peer: RawPeer) -> None:
        peer.socket = trusts.wrap_socket(peer.socket, server_hostname="localhost")

    with RawPeer(("127.0.0.1", running.port)) as first:
        secure(first)
        first.associate()
        first.release()
    (receiver,) = running.processes("scp.pipeline.receiver")
    until(lambda: threads(receiver) < 20, "the first peer stays")
    idle = resident_mib(receiver)

    with contextlib.ExitStack() as open_peers:
        for _ in range(PEERS):
            peer = open_peers.enter_context(RawPeer(("127.0.0.1", running.port)))
            if attack is not hello_that_never_ends:
                secure(peer)
            attack(peer)
        until(lambda: threads(receiver) >= PEERS, "they are not served")
        until(lambda: unread_bytes(running.port) == 0, "what they send is not read")
        most = resident_mib(receiver)

    assert most - idle <= MOST_MIB, f"{idle:.1f} MiB idle, {most:.1f} MiB with {PEERS} peers"
    until(lambda: threads(receiver) < 20, "associations outlive their peers")


def test_a_deflate_bomb_is_answered_and_costs_little(node: StartNode) -> None:
    bomb = deflated(b"\x09\0\x10\x10OB\0\0\0\0\0\x10" + bytes(2**28), level=9)
    running = node({"node": {"receivers": 1}})
    assert echoscu(running.port) == 0
    (receiver,) = running.processes("scp.pipeline.receiver")
    idle = resident_mib(receiver)

    with RawPeer(("127.0.0.1", running.port)) as peer:
        peer.associate(associate_request([(CT, [DEFLATED])]))
        peer.send(p_data((1, COMMAND | LAST, store_command())))
        for start in range(0, len(bomb), 100_000):
            peer.send(p_data((1, 0, bomb[start : start + 100_000])))
        peer.send(p_data((1, LAST, b"")))
        assert peer.read_response().Status == 0xC000
        peer.release()

    assert resident_mib(receiver, "VmHWM") - idle <= MOST_MIB
    assert running.wait_idle()["received"] == 0
    until(lambda: running.arriving_bytes() == 0, "the bomb stays")


@pytest.mark.parametrize(
    ("before", "status"),
    [
        (b"\x09\0\x10\x10OB\0\0" + pack("<L", 60 * 2**20) + bytes(60 * 2**20), 0x0000),
        (b"\x09\0\x10\x10SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\0\0\0\0" * 2**23, 0xC000),
    ],
    ids=["an element of 60 MiB", "64 MiB of empty items"],
)
def test_a_long_header_costs_little_memory_and_time(
    node: StartNode, before: bytes, status: int
) -> None:
    running = node({"node": {"receivers": 1}})
    assert echoscu(running.port) == 0
    (receiver,) = running.processes("scp.pipeline.receiver")
    idle, idle_cpu = resident_mib(receiver), cpu_seconds(receiver)
    sent = Sent("2.25.77")
    start = sent.dataset.index(element(0x0020, 0x000D, b"UI", STUDY))
    dataset = sent.dataset[:start] + before + sent.dataset[start:]

    with RawPeer(("127.0.0.1", running.port)) as peer:
        peer.socket.settimeout(60)
        peer.associate()
        peer.send(p_data((1, COMMAND | LAST, store_command())))
        for offset in range(0, len(dataset), 131_000):
            peer.send(p_data((1, 0, dataset[offset : offset + 131_000])))
        peer.send(p_data((1, LAST, b"")))
        assert peer.read_response().Status == status
        peer.release()

    assert resident_mib(receiver, "VmHWM") - idle <= MOST_MIB / 2
    assert cpu_seconds(receiver) - idle_cpu < MOST_CPU_SECONDS


def cpu_seconds(pid: int) -> float:
    """Of all its threads; a machine that is busy adds nothing."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def unread_bytes(port: int) -> int:
    """What has come in by a port's connections and was not read yet."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(
        int(row[4].partition(":")[2], 16)
        for row in rows
        if row[3] == "01" and int(row[1].partition(":")[2], 16) == port
    )

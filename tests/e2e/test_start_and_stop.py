"""How a node starts, and does not; how it stops, and is stopped."""

import json
import os
import resource
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pydicom
import pytest

from scp.buffer.job import Job
from scp.buffer.jobs import ORIGINAL, JobFolders
from scp.buffer.layout import JOB_FILE, Layout
from scp.durable import Disk
from tests.accept.raw_peer import RawPeer
from tests.conftest import REPOSITORY
from tests.e2e.conftest import StartNode
from tests.e2e.judges import assert_converted
from tests.e2e.node import COMMAND, RunningNode, command, is_alive, until
from tests.e2e.peers import echoscu, first_half, free_port, second_half
from tests.material import ct_series, write_all
from tests.pipeline.jobs import instance_of, job_of

pytestmark = pytest.mark.xdist_group("e2e start and stop")


def test_a_receiver_may_open_as_many_files_as_its_associations_need(node: StartNode) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
    try:
        running = node({"node": {"receivers": 1}, "limits": {"max_associations": 300}})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert echoscu(running.port) == 0
    (receiver,) = running.processes("scp.pipeline.receiver")
    assert resource.prlimit(receiver, resource.RLIMIT_NOFILE) == (1500, hard)


@pytest.mark.timeout(240)
def test_sigterm_lets_an_association_finish_and_leaves_the_rest_on_disk(
    node: StartNode, tmp_path: Path
) -> None:
    first, second, third = write_all(ct_series(3, 128, 128, seed=801), tmp_path / "ct")
    running = node({"series": {"quiet_seconds": 5.0}})
    with RawPeer(("127.0.0.1", running.port)) as peer:
        peer.associate()
        peer.send(first_half(first) + second_half(first))
        assert peer.read_response().Status == 0
        peer.send(first_half(second))
        codes: list[int] = []
        stopping = threading.Thread(target=lambda: codes.append(running.terminate()))
        stopping.start()
        until(lambda: not _listens(running.port), "the port stays open")

        peer.send(second_half(second))

        assert peer.read_response().Status == 0
        peer.send(first_half(third) + second_half(third))
        assert peer.read_response().Status == 0
        peer.release()
    stopping.join(60)
    assert codes == [0]
    assert len([path for path in running.data.rglob("growing/*/*.dcm")]) == 3
    assert running.archived() == []
    assert "stopped" in running.log()

    running.start()

    running.wait_for(delivered=3, pending=0)
    for path in (first, second, third):
        assert_converted(path, running.delivered(pydicom.dcmread(path)))


@pytest.mark.timeout(240)
def test_a_node_whose_standard_streams_were_closed_serves_and_every_process_holds_the_lock(
    node: StartNode, tmp_path: Path
) -> None:
    running = node()
    assert running.terminate() == 0

    running.start(through=("bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash"))

    running.send(write_all(ct_series(1, 64, 64, seed=821), tmp_path / "ct"))
    running.wait_for(delivered=1, pending=0)
    lock = (running.data / "lock").resolve()
    for pid in running.processes():
        held = {each.resolve() for each in Path(f"/proc/{pid}/fd").iterdir()}
        assert lock in held, Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.timeout(240)
def test_the_first_job_is_delivered_while_the_next_is_read_and_the_port_waits_for_all(
    node: StartNode, tmp_path: Path
) -> None:
    running = node()
    assert running.terminate() == 0
    _leave_job(running, "20260101T000000000000Z-first", tmp_path / "first", seed=811)
    second = _leave_job(running, "20260101T000000000001Z-second", tmp_path / "second", seed=812)
    # Whoever reads the commit of the second job waits until it is written.
    commit = Layout(running.data).jobs / second.name / JOB_FILE
    commit.unlink()
    os.mkfifo(commit)
    starting = threading.Thread(target=running.start)
    starting.start()

    until(lambda: len(running.archived()) == 1, "the first waits for the second")

    assert not running.is_ready()
    commit.write_text(json.dumps(second.to_json()))
    starting.join(90)
    running.wait_for(delivered=2, pending=0)
    assert len(running.archived()) == 2


def _leave_job(running: RunningNode, name: str, material: Path, *, seed: int) -> Job:
    """A committed job of one instance, as a node leaves it."""
    (path,) = write_all(ct_series(1, 64, 64, seed=seed), material)
    folders = JobFolders(Layout(running.data), Disk())
    folders.source(name).mkdir(parents=True)
    path.rename(folders.source(name) / path.name)
    instance = instance_of(folders.source(name) / path.name, form=ORIGINAL)
    job = job_of(name, [instance])
    folders.commit(job)
    return job


@pytest.mark.timeout(240)
def test_kill_9_of_the_supervisor_takes_its_children_along_and_a_new_node_starts_at_once(
    node: StartNode, tmp_path: Path
) -> None:
    paths = write_all(ct_series(3, 64, 64, seed=802), tmp_path / "ct")
    port = free_port()
    running = node({"node": {"port": port}})
    running.send(paths)
    children = running.processes()[1:]
    assert len(children) == 3

    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    running.start()

    assert not any(map(is_alive, children))
    assert echoscu(port) == 0
    running.wait_for(delivered=3, pending=0)

    # While it runs, nobody else gets its data folder, nor another node its port.
    refused = command("serve", "-c", str(running.config_file))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert f"another node (process {running.pid}) uses {running.data}" in refused.stderr
    other = RunningNode(tmp_path / "other", {"node": {"port": port}})
    refused = command("serve", "-c", str(other.config_file))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert f"port {port} on 127.0.0.1 cannot be had: Address already in use" in refused.stderr
    assert echoscu(port) == 0


def test_a_configuration_with_three_faults_is_refused_with_three_lines(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("node:\n  port: eleven\n  colour: red\ndefault: {send_to: [nowhere]}\n")

    for arguments in (["serve", "-c", str(file)], ["check", str(file)]):
        done = command(*arguments)
        assert done.returncode == 2
        lines = done.stderr.splitlines()
        assert len(lines) == 3, lines
        assert lines[0].startswith(f"{file}:2:9: ")
        assert lines[1].startswith(f"{file}:3:3: ")
        assert lines[2].startswith(f"{file}:4:")
        assert done.stdout == ""


def test_sigint_stops_a_node_like_sigterm_even_while_it_starts(tmp_path: Path) -> None:
    starting = RunningNode(tmp_path / "node", {})
    process = subprocess.Popen(
        [*COMMAND, "serve", "-c", str(starting.config_file)],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # The data folder is there once signals are taken in order.
        until((starting.data / "lock").exists, "it does not start")
        until(lambda: (starting.data / "lock").read_text() != "", "it does not start")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (0, 130)
    assert "Traceback" not in said


@pytest.mark.parametrize("started_by", ["a terminal", "nohup"])
def test_a_closed_terminal_stops_a_node_in_order_unless_it_was_told_to_outlive_it(
    node: StartNode, started_by: str
) -> None:
    outlives = started_by == "nohup"
    running = node()
    assert running.terminate() == 0
    # The tests themselves may have been told to outlive their terminal, and a node inherits that.
    running.start(through=("nohup",) if outlives else ("env", "--default-signal=HUP"))
    with RawPeer(("127.0.0.1", running.port)) as peer:
        peer.associate()

        os.kill(running.pid, signal.SIGHUP)

        until(lambda: outlives or not _listens(running.port), "the port stays open")
        peer.release()
    if not outlives:
        assert running.wait() == 0
    else:
        assert echoscu(running.port) == 0


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

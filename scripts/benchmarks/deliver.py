"""Delivery: how fast, what a bad destination costs the good ones, and a start with much waiting."""

import contextlib
import hashlib
import itertools
import multiprocessing
import os
import shutil
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts

from scp.buffer.job import Job, JobInstance
from scp.buffer.jobs import ORIGINAL, JobFolders
from scp.buffer.layout import Layout
from scp.cli.demo_material import ct_series, write
from scp.config.schema import DicomDestination
from scp.deliver.send import item_of, send_files
from scp.durable import Disk
from scp.errors import ConversionError
from scp.model import DeliveryItem, Identity, Origin
from scp.pipeline.control import ask
from scripts.benchmarks import peers
from scripts.benchmarks.measure import cpu_seconds, settle

COUNT, ROUNDS = 400, 5
JOBS, BAD_ROUNDS = 1000, 3
PENDING, PENDING_JOBS, STATUS_ROUNDS = 100_000, 100, 20
_CT = "1.2.840.10008.5.1.4.1.1.2"


def run(folder: Path) -> None:
    """Three measurements."""
    _beside_storescu(folder)
    _beside_bad_destinations(folder)
    _start_with_much_pending(folder)


# -- one association -----------------------------------------------------------------------------


def _beside_storescu(folder: Path) -> None:
    files = peers.ct_files(folder / "ct", COUNT)
    total = sum(file.stat().st_size for file in files)
    theirs, ours, there = [], [], folder / "received"
    for _ in range(ROUNDS):
        with peers.storescp(there) as (port, _):
            settle(2 * total)
            theirs.append(peers.storescu(port, folder / "ct"))
        shutil.rmtree(there)
        with peers.storescp(there) as (port, _):
            settle(2 * total)
            started = time.perf_counter()
            section = DicomDestination.model_validate(_dicom(port))
            assert all(receipt.verdict.is_done for receipt in send_files(files, section, _refuse))
            ours.append(time.perf_counter() - started)
        shutil.rmtree(there)
    their, our = statistics.median(theirs), statistics.median(ours)
    print(f"{COUNT} CT to DCMTK storescp, median of {ROUNDS}:")
    print(f"  storescu {their:.3f} s, dcmpress {our:.3f} s: ratio {our / their:.2f} (<= 1.15)")


# -- several destinations ------------------------------------------------------------------------


def _beside_bad_destinations(folder: Path) -> None:
    """What two of four destinations cost the other two: healthy as these, failing, and not there."""
    files = [write(one, folder / "small") for one in _small(folder / "small", JOBS)]
    rounds: dict[str, list[_Round]] = {"alone": [], "healthy": [], "failing": []}
    refusing: list[float] = []
    for number in range(BAD_ROUNDS):
        there = folder / f"round-{number}"
        there.mkdir()
        rounds["alone"].append(_until_both_have_all(there / "alone", files, {}))
        with peers.storescp(there / "a") as (a, _), peers.storescp(there / "b") as (b, _):
            others = {"three": _dicom(a), "four": _dicom(b)}
            rounds["healthy"].append(_until_both_have_all(there / "healthy", files, others))
        with _refusing_every_second() as (port, process):
            others = {"down": _dicom(peers.free_port()), "refusing": _dicom(port)}
            rounds["failing"].append(_until_both_have_all(there / "failing", files, others))
            refusing.append(cpu_seconds(process))
        shutil.rmtree(there)
    medians = {name: _median(each) for name, each in rounds.items()}
    print(
        f"{JOBS} jobs of one instance, until two destinations that work have all,"
        f" median of {BAD_ROUNDS}:"
    )
    for name, who in (
        ("alone", "these two alone"),
        ("healthy", "beside two more that work"),
        ("failing", "beside one that is down and one that refuses every second"),
    ):
        print(f"  {who}: {medians[name].seconds:.2f} s, node's CPU {medians[name].cpu:.2f} s")
    print(
        f"  two that fail instead of two that work: {_change(medians, 'healthy')} (<= 10);"
        f" instead of none: {_change(medians, 'alone')};"
        f" CPU of the one that refuses, on the same cores: {statistics.median(refusing):.2f} s"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """One measurement, in seconds."""

    seconds: float
    cpu: float
    """Of the node, until the two destinations have all."""


def _median(rounds: list[_Round]) -> _Round:
    return _Round(
        seconds=statistics.median(each.seconds for each in rounds),
        cpu=statistics.median(each.cpu for each in rounds),
    )


def _change(medians: dict[str, _Round], base: str) -> str:
    failing, other = medians["failing"], medians[base]
    seconds, cpu = failing.seconds / other.seconds - 1, failing.cpu / other.cpu - 1
    return f"{100 * seconds:+.0f} %, CPU {100 * cpu:+.0f} %"


def _small(folder: Path, count: int) -> Iterator[Any]:
    folder.mkdir()
    series = (ct_series(100, 32, 32, seed=seed) for seed in itertools.count(1))
    return itertools.islice(itertools.chain.from_iterable(series), count)


def _until_both_have_all(folder: Path, files: list[Path], others: dict[str, Any]) -> _Round:
    folder.mkdir()
    with (
        peers.storescp(folder / "one") as (one, _),
        peers.storescp(folder / "two") as (two, _),
    ):
        destinations = {"one": _dicom(one), "two": _dicom(two), **others}
        outcome = {"convert": "original", "deliver": "at_once", "send_to": list(destinations)}
        with peers.node(
            folder / "node",
            destinations=destinations,
            rules=[{"name": "all", "match": {}, **outcome}],
            default={"send_to": ["one"]},
        ) as (port, process, _):
            section = DicomDestination.model_validate(_dicom(port) | {"ae_title": "DCMPRESS"})
            settle(2**20)
            started, busy = time.perf_counter(), cpu_seconds(process)
            assert all(receipt.verdict.is_done for receipt in send_files(files, section, _refuse))
            for place in ("one", "two"):
                end = peers.wait_for_files(folder / place, len(files))
            busy = cpu_seconds(process) - busy
    shutil.rmtree(folder)
    return _Round(seconds=end - started, cpu=busy)


@contextlib.contextmanager
def _refusing_every_second() -> Iterator[tuple[int, int]]:
    """A peer as no program of DCMTK can be; its port and its process, which leaves us the cores."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_refuse_every_second, args=(theirs,), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        yield ours.recv(), process.pid
    finally:
        process.terminate()
        process.join()


def _refuse_every_second(port: Connection) -> None:
    """Until it is terminated. A real peer has a machine of its own: this one waits for the node."""
    os.nice(19)
    numbers = itertools.count()

    def answer(event: evt.Event) -> int:
        return 0xA900 if next(numbers) % 2 else 0x0000

    entity = AE("REFUSING")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), str(ExplicitVRLittleEndian))
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)]
    )
    assert server is not None
    port.send(server.server_address[1])
    signal.pause()


# -- much that waits -----------------------------------------------------------------------------


def _start_with_much_pending(folder: Path) -> None:
    here = folder / "pending"
    _fill(here / "data", folder)
    settle(2**20)  # Else the start waits for what the jobs left to write back.
    with peers.storescp(folder / "first") as (port, _):
        started = time.perf_counter()
        with peers.node(
            here,
            destinations={"pacs": _dicom(port)},
            default={"convert": "original", "send_to": ["pacs"]},
            waits=False,
        ):
            first = peers.wait_for_files(folder / "first", 1) - started
            answers = [_status(here / "data" / "control") for _ in range(STATUS_ROUNDS)]
    took, status = [1000 * seconds for seconds, _ in answers], answers[0][1]
    print(f"{PENDING} pending instances in {PENDING_JOBS} jobs:")
    print(f"  start of the process to the first delivery {first:.2f} s (<= 5)")
    print(
        f"  status of {status['pending']} pending, once the ports are open: first {took[0]:.0f} ms,"
        f" median of {STATUS_ROUNDS} {statistics.median(took):.0f} ms, longest {max(took):.0f} ms"
        " (<= 200)"
    )


def _status(control: Path) -> tuple[float, dict[str, Any]]:
    """How long a status took, and what it said; until the spool is recovered there is none."""
    while True:
        asked = time.perf_counter()
        status = ask(control, {"command": "status"})
        if status is not None:
            return time.perf_counter() - asked, status
        time.sleep(0.02)


def _fill(data: Path, sample: Path) -> None:
    """Jobs as a node leaves them; their files are links, for only its bytes are sent."""
    layout, disk = Layout(data), Disk()
    layout.make(disk)
    written = write(next(ct_series(1, 32, 32)), sample)
    item = item_of(written)
    assert isinstance(item, DeliveryItem)
    digest = hashlib.sha256(written.read_bytes()).hexdigest()
    folders = JobFolders(layout, disk)
    for number in range(PENDING_JOBS):
        name = f"20260101T000000000000Z-{number:08x}"
        source = folders.source(name)
        source.mkdir(parents=True)
        linked = sample / f"linked-{number}.dcm"
        shutil.copyfile(written, linked)  # A file has 65,000 names at most.
        instances = []
        for index in range(PENDING // PENDING_JOBS):
            identity = Identity(
                sop_class_uid=_CT,
                sop_instance_uid=f"2.25.{number}.{index}",
                study_instance_uid="2.25.1",
                series_instance_uid=f"2.25.1.{number}",
            )
            file = f"{identity.file_stem}.dcm"
            (source / file).hardlink_to(linked)
            instances.append(
                JobInstance(
                    name=file,
                    identity=identity,
                    origin=Origin(calling_ae_title="A", called_ae_title="B", peer_address=""),
                    received=time.time(),
                    source_transfer_syntax=item.transfer_syntax,
                    source_bytes=written.stat().st_size,
                    rule="default",
                    form=ORIGINAL,
                    send_to=("pacs",),
                    transfer_syntax=item.transfer_syntax,
                    result_bytes=written.stat().st_size,
                    dataset_sha256=digest,
                    normal_sha256=digest,
                    result_sha256=digest,
                )
            )
        folders.commit(
            Job(
                name=name,
                study_instance_uid="2.25.1",
                series_instance_uid=f"2.25.1.{number}",
                created=time.time(),
                rules="",
                instances=tuple(instances),
            )
        )


def _dicom(port: int) -> dict[str, Any]:
    return {"kind": "dicom", "host": "127.0.0.1", "port": port, "ae_title": "STORESCP"}


def _refuse(item: DeliveryItem, transfer_syntax: str) -> Path:
    raise ConversionError("the peer takes everything as it is")

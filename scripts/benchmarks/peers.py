"""The programs beside us, and our own node, started for one measurement."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from scp.cli.demo_material import ct_series, write
from scp.pipeline.control import ask

_START_SECONDS = 60.0
_SENDER_SECONDS = 300.0
"""More than a sender may ever take; a measurement ends, whatever happens."""
_DIFFERENT = 20
"""Images of a series whose content does not matter."""
_WORKERS = os.cpu_count() or 1
"""As many as a node starts by itself; what they cost before they are ready is not measured."""
_SENDER = {"TCP_NODELAY": "1"}
"""Without it DCMTK's programs lose 40 ms an instance to Nagle's algorithm."""


def program(name: str) -> str:
    """A peer's program; not pynetdicom's of the same name in the virtual environment."""
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != own)
    found = shutil.which(name, path=f"{path}:/usr/sbin")
    if found is None:
        raise SystemExit(f"{name} is not here: run scripts/install-peers")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ct_files(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """A CT series of 512x512, 12 bits in 16, 525 kB each."""
    folder.mkdir(parents=True)
    return [write(one, folder) for one in ct_series(count, seed=seed)]


def ct_copies(
    folder: Path, count: int, rows: int = 512, columns: int = 512, seed: int = 0
) -> list[Path]:
    """As :func:`ct_files`, where nothing but the sizes matters: a few images, under many UIDs."""
    folder.mkdir(parents=True)
    made = []
    for number, image in enumerate(ct_series(min(count, _DIFFERENT), rows, columns, seed)):
        made += copies(write(image, folder), range(number, count, _DIFFERENT))
    return made


def copies(file: Path, numbers: Iterable[int]) -> list[Path]:
    """Put the image under other SOP Instance UIDs in its place, by their bytes alone.

    The numbers, of six digits at most, become the end of the UID, which the file is called by.
    """
    parts = file.read_bytes().split(file.stem.encode())
    file.unlink()
    made = []
    for number in numbers:
        uid = f"{file.stem[:-6]}{number:06}"
        made.append(file.with_name(f"{uid}.dcm"))
        made[-1].write_bytes(uid.encode().join(parts))
    return made


def storescu(port: int, place: Path, *, must_succeed: bool = True) -> float:
    """Send a folder or a file over one association by DCMTK's storescu; seconds."""
    started = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - a benchmark's peer
        [program("storescu"), "--max-send-pdu", "131072", "+sd", "127.0.0.1", str(port), place],
        env={**os.environ, **_SENDER},
    ) as sender:
        timer = threading.Timer(_SENDER_SECONDS, sender.kill)
        timer.start()
        try:
            status = sender.wait()  # With a timeout it would look every 50 ms only.
        finally:
            timer.cancel()
    seconds = time.perf_counter() - started
    if status and must_succeed:
        raise SystemExit(f"storescu ended with {status}")
    return seconds


def echoscu(port: int, *options: str) -> None:
    """Open an association, ask whether anybody is there, release it, by DCMTK's echoscu."""
    command = [program("echoscu"), *options, "127.0.0.1", str(port)]
    subprocess.run(command, check=True, env={**os.environ, **_SENDER})  # noqa: S603 - a benchmark's peer


def storescus(port: int, senders: Sequence[Sequence[Path]]) -> float:
    """Senders at once, each with one association after another; seconds until the last has ended."""
    started = time.perf_counter()
    with ThreadPoolExecutor(len(senders)) as pool:
        for _ in pool.map(lambda places: [storescu(port, place) for place in places], senders):
            pass
    return time.perf_counter() - started


@contextlib.contextmanager
def storescp(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[int, int]]:
    """DCMTK's storescp; its port and process."""
    folder.mkdir()
    port = free_port()
    command = [program("storescp"), *options, "-pdu", "131072", "-od", str(folder), str(port)]
    with _running(command, port, environment) as process:
        yield port, process.pid


@contextlib.contextmanager
def orthanc(folder: Path, syntax: str | None = None) -> Iterator[tuple[int, int]]:
    """Orthanc, which transcodes what comes in where a syntax is given; its port and process."""
    folder.mkdir()
    port, web = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomPort": port,
        "HttpPort": web,
        "RemoteAccessAllowed": False,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "Plugins": [],
        **({"IngestTranscoding": syntax} if syntax else {}),
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with _running([program("Orthanc"), str(folder / "orthanc.json")], port) as process:
        yield port, process.pid


@contextlib.contextmanager
def node(
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    node: Mapping[str, Any] | None = None,
    waits: bool = True,
    **sections: Any,
) -> Iterator[tuple[int, int, Path]]:
    """Our node; its port, its process, its archive. Without ``waits`` it has only been started."""
    folder.mkdir(exist_ok=True)
    archive = folder / "archive"
    config = {
        "node": {"bind": "127.0.0.1", "port": 0, "data": str(folder / "data"), **(node or {})},
        "series": {"quiet_seconds": 1},
        "limits": {"reserve": "100MB"},
        "destinations": {"archive": {"kind": "folder", "path": str(archive)}},
        **sections,
    }
    (folder / "dcmpress.yaml").write_text(yaml.safe_dump(config))
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "scp.cli.main", "serve", "-c", str(folder / "dcmpress.yaml")],
            stderr=log,
            env={**os.environ, **(environment or {})},
        )
        try:
            deadline = time.monotonic() + _START_SECONDS
            found: dict[str, Any] | None = None if waits else {"port": 0}
            while waits and (
                (found := status(folder)) is None or found["workers"]["ready"] < _WORKERS
            ):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit((folder / "node.log").read_text())
                time.sleep(0.05)
            assert found is not None
            port = int(found["port"])
            if waits:  # The receiver has begun, too.
                subprocess.run([program("echoscu"), "127.0.0.1", str(port)], check=True)  # noqa: S603
            yield port, process.pid, archive
        finally:
            process.terminate()
            try:
                process.wait(_START_SECONDS)
            finally:
                process.kill()  # One that hangs fails the measurement, and does not outlive it.


def wait_until_delivered(folder: Path, count: int, seconds: float = 600.0) -> None:
    """Until the node's counter says so; asked rarely enough not to be measured."""
    deadline = time.monotonic() + seconds
    while (found := status(folder)) is None or found["delivered"] < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"the node did not deliver {count} instances: {found}")
        time.sleep(0.05)


def wait_for_files(archive: Path, count: int, seconds: float = 600.0) -> float:
    """Wait for so many files and return when the last appeared (time.perf_counter)."""
    deadline = time.perf_counter() + seconds
    while _count(archive) < count:
        if time.perf_counter() > deadline:
            raise SystemExit(f"{archive} did not get {count} files")
        time.sleep(0.01)
    return time.perf_counter()


def _count(archive: Path) -> int:
    return sum(not name.startswith(".") for _, _, names in os.walk(archive) for name in names)


def status(folder: Path) -> dict[str, Any] | None:
    """What the node says of itself; None while nothing answers."""
    control = folder / "data" / "control"
    return ask(control, {"command": "status"}) if control.exists() else None


@contextlib.contextmanager
def _running(
    command: list[str], port: int, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - a benchmark's peer
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **_SENDER, **(environment or {})},
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.05)
        time.sleep(0.3)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)

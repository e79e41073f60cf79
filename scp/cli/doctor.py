"""dcmpress doctor: what works on this machine, tried and not guessed."""

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from scp import tls
from scp.accept import descriptors
from scp.buffer.layout import Layout
from scp.cli import output
from scp.cli.configuration import load_config
from scp.cli.gpus import describe_gpu
from scp.config.network import ListenerSection
from scp.config.schema import Config
from scp.config.schema import DicomDestination as DicomSection
from scp.deliver.dicom import DicomDestination
from scp.durable import Disk, free_bytes
from scp.errors import CodecError, ConversionError, EmptyLedgerError, NodeError, ScpError
from scp.model import DeliveryItem
from scp.pipeline.control import ask
from scp.pipeline.destinations import build_destination
from scp.pipeline.sockets import bind

_FSYNCS = 20
_CONNECT_SECONDS = 10.0
_SOON_DAYS = 30
_SLOW_FSYNC_MS = 20.0
_GPU_DOES = {
    "auto": "it proves the largest frames, and encodes large ones where it is free",
    "gpu": "it encodes large frames, the CPU proves",
}
_LIBRARIES = ("pydicom", "pynetdicom", "highdicom", "numpy", "imagecodecs", "ojph", "python-gdcm")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried."""

    part: str
    works: bool | None
    """None: it is not needed, or not there, and that is no fault."""
    detail: str


def examine(path: Path | None, *, as_json: bool) -> None:
    """Try everything.

    Raises
    ------
    NodeError
        Something that the configuration needs does not work.
    """
    config = load_config(path)
    findings = list(_findings(config))
    if as_json:
        output.show_json([asdict(finding) for finding in findings])
    else:
        marks = {True: "works", False: "DOES NOT WORK", None: "-"}
        output.show_table(
            ["part", "", "detail"], [(f.part, marks[f.works], f.detail) for f in findings]
        )
    broken = [finding.part for finding in findings if finding.works is False]
    if broken:
        raise NodeError(f"does not work: {', '.join(broken)}")


def _findings(config: Config) -> Iterator[Finding]:
    yield _tried("libraries", _try_libraries)
    yield _tried("codecs", _try_codecs)
    yield _gpu(config)
    yield from _gpus_of_node(config)
    yield _tried("disk", lambda: _try_disk(config.node.data))
    yield _tried("room", lambda: _try_room(config))
    yield _tried("open files", lambda: _try_descriptors(config))
    yield _tried("clock", lambda: _try_clock(config.node.data))
    yield _tried("ledger", lambda: _try_ledger(config))
    for listener in config.ports:
        part = f"port {listener.port}" if config.listeners else "port"
        yield _tried(part, lambda each=listener: _try_port(config, each))  # type: ignore[misc]
    for name in config.destinations:
        yield _tried(f"destination {name}", lambda n=name: _try_destination(config, n))  # type: ignore[misc]


def _tried(part: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(part, True, attempt())
    except (ScpError, OSError) as error:
        return Finding(part, False, str(error))
    except Exception as error:
        # Whatever is broken here, the other parts are still worth knowing.
        return Finding(part, False, _named(error))


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _try_libraries() -> str:
    found = {name: _version(name) for name in _LIBRARIES}
    missing = [name for name in _LIBRARIES if not found[name]]
    if missing:
        raise NodeError(f"{', '.join(missing)} missing: install dcmpress anew by scripts/install")
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _try_codecs() -> str:
    # Here, because a library that cannot be imported is a finding.
    import numpy as np

    from scp.convert.codec_cpu import OpenJpegDecoder, OpenJphEncoder
    from scp.convert.ports import FrameFormat

    frame_format = FrameFormat(
        rows=256,
        columns=256,
        samples=1,
        bits_allocated=16,
        bits_stored=12,
        is_signed=False,
        colour_transform=False,
    )
    ramp = np.add.outer(np.arange(256), np.arange(256)) % 4096
    frames = np.ascontiguousarray(ramp.astype(np.uint16).reshape(1, 256, 256, 1))
    encoder, decoder = OpenJphEncoder(), OpenJpegDecoder()
    started = time.perf_counter()
    streams = encoder.encode(frames, frame_format, Config.model_fields["htj2k"].default)
    decoded = decoder.decode(streams, frame_format)
    milliseconds = (time.perf_counter() - started) * 1000
    if not np.array_equal(decoded, frames):
        raise NodeError("a frame came back changed: do not convert with these libraries")
    return f"{encoder.name} encodes, {decoder.name} proves; one frame {milliseconds:.1f} ms"


def _gpu(config: Config) -> Finding:
    """What works is a fault only where the configuration asks for it."""
    backend = config.codec.backend
    if backend == "cpu":
        return Finding("GPU", None, "not wanted: codec: backend: cpu")
    try:
        from scp.convert.gpu import try_gpus

        detail = f"{try_gpus()}; {_GPU_DOES[backend]}"
        return Finding("GPU", True, detail)
    except CodecError as error:
        detail = f"{error}; the CPU converts"
    except Exception as error:
        detail = f"{_named(error)}; the CPU converts"
    if backend == "gpu":
        return Finding("GPU", False, f"{detail}; set codec: backend: to auto or cpu")
    return Finding("GPU", None, detail)


def _gpus_of_node(config: Config) -> Iterator[Finding]:
    """How the GPUs fare that a running node has."""
    try:
        running = ask(Layout(config.node.data).control, {"command": "status"}) or {}
    except NodeError:
        return  # The port says so.
    for gpu in running.get("gpus", ()):
        is_used = gpu["state"] == "in use"
        yield Finding(f"GPU {gpu['number']} of the node", is_used, describe_gpu(gpu))


def _try_disk(data: Path) -> str:
    """Write, fsync, rename and fsync the folder, as an acknowledged instance needs."""
    disk = Disk()
    Layout(data).make(disk)
    folder = Layout(data).incoming
    started = time.perf_counter()
    for _ in range(_FSYNCS):
        name = folder / f".doctor.{uuid.uuid4().hex}"
        with disk.create(name) as file:
            file.write(bytes(65536))
            file.sync()
        moved = name.with_suffix(".moved")
        disk.rename(name, moved)
        disk.sync_folder(folder)
        disk.unlink(moved)
    milliseconds = (time.perf_counter() - started) * 1000 / _FSYNCS
    slow = (
        "; slow: each acknowledged instance waits so long" if milliseconds > _SLOW_FSYNC_MS else ""
    )
    return f"{data}: write, fsync, rename, fsync folder {milliseconds:.2f} ms{slow}"


def _try_room(config: Config) -> str:
    free, reserve = free_bytes(config.node.data), config.limits.reserve
    detail = f"{free / 1e9:.1f} GB free, {reserve / 1e9:.1f} GB are kept in reserve"
    if free <= reserve:
        raise NodeError(detail)
    return detail


def _try_descriptors(config: Config) -> str:
    if (too_few := descriptors.shortage(config.limits)) is not None:
        raise NodeError(too_few)
    allowed = descriptors.allowed_descriptors()
    return (
        f"a receiver may need {descriptors.needed_descriptors(config.limits):,}, and may have "
        + ("any number" if allowed is None else f"{allowed:,}")
    )


def _try_clock(data: Path) -> str:
    """File times and the system's must agree: they bound how long a series stays open."""
    probe = data / f".clock.{uuid.uuid4().hex}"
    probe.touch()
    try:
        offset = probe.stat().st_mtime - time.time()
    finally:
        probe.unlink()
    if abs(offset) > 2.0:
        raise NodeError(f"files in {data} are dated {offset:+.0f} s from the system's clock")
    return f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}, files agree"


def _try_ledger(config: Config) -> str:
    """See that the account can be reached; the first start of a node makes what is not there."""
    # Here, because a library that cannot be imported is a finding.
    from scp.ledger.open import open_for_reading

    path = Layout(config.node.data).ledger
    if config.ledger.url is None and not path.exists():
        return f"{path} is made when the node is started for the first time"
    try:
        with closing(open_for_reading(config.ledger, path)) as ledger:
            newest = ledger.recent(1)
    except EmptyLedgerError as error:
        return str(error)
    return f"answers; last recorded: {newest[0].finished_at.isoformat() if newest else 'nothing'}"


def _try_port(config: Config, listener: ListenerSection) -> str:
    node = config.node
    certificate = _try_certificate(listener)
    running = ask(Layout(node.data).control, {"command": "status"})
    if running is None:
        bind(listener).close()
        found = f"{listener.port} on {listener.bind} is free; the node does not run"
        return f"{found}; {certificate}" if certificate else found
    host, port = _local(listener.bind), listener.port or int(running["port"])
    if certificate:
        # The node's own certificate need not be one that it believes of peers: no C-ECHO here.
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
        return f"the node runs and takes connections; {certificate}"
    title = next(iter(listener.ae_titles), node.ae_title)
    here = DicomSection(kind="dicom", host=host, port=port, ae_title=title)
    return "the node runs; " + DicomDestination("itself", here, _no_decoding).check()


def _try_certificate(listener: ListenerSection) -> str:
    pair = listener.tls
    if pair is None:
        return ""
    if pair.ca is not None:
        tls.examine_authorities(pair.ca)
    identity = tls.examine(pair.certificate, pair.key)
    days = (identity.not_after - time.time()) / 86400
    soon = ": renew it soon" if days < _SOON_DAYS else ""
    return f"the certificate of {identity.name or 'nobody'} is good for {days:.0f} days{soon}"


def _local(bind: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104 - compared only


def _try_destination(config: Config, name: str) -> str:
    def decode(item: DeliveryItem, transfer_syntax: str, decode_lossy: bool) -> Path:
        return _no_decoding(item, transfer_syntax)

    section, title = config.destinations[name], config.node.ae_title
    return build_destination(name, section, Disk(), decode, own_title=title).check()


def _no_decoding(item: DeliveryItem, transfer_syntax: str) -> Path:
    raise ConversionError("nothing is decoded for a test of the connection")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""

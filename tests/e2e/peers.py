"""Real peers of the node: DCMTK's programs and pynetdicom."""

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from tests.accept.raw_peer import COMMAND, LAST, p_data, store_command
from tests.conftest import peer_program
from tests.e2e.judges import dataset_bytes


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def held_port() -> Iterator[int]:
    """A TCP port of the loopback address that nobody listens on, and nobody else is given."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        yield port


def storescu(port: int, paths: Sequence[Path], *options: str, calling: str = "MODALITY") -> None:
    """DCMTK's sender; it fails unless every instance is answered 0000."""
    subprocess.run(
        [
            peer_program("storescu"),
            *("-aet", calling, "-aec", "DCMPRESS", "--no-halt", *options),
            *("127.0.0.1", str(port), *map(str, paths)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, "TCP_NODELAY": "1"},
    )


def echoscu(port: int, *options: str) -> int:
    """DCMTK's C-ECHO; its exit code."""
    done = subprocess.run(
        [peer_program("echoscu"), *options, "127.0.0.1", str(port)],
        check=False,
        capture_output=True,
        timeout=30,
    )
    return done.returncode


def first_half(path: Path) -> bytes:
    """The command and half of the dataset of a C-STORE of a CT, for a :class:`RawPeer`."""
    dataset = dataset_bytes(path)
    command = store_command(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID))
    return p_data((1, COMMAND | LAST, command)) + p_data((1, 0, dataset[: len(dataset) // 2]))


def second_half(path: Path) -> bytes:
    """The rest of it."""
    dataset = dataset_bytes(path)
    return p_data((1, LAST, dataset[len(dataset) // 2 :]))


@contextmanager
def pynetdicom_archive(folder: Path, *syntaxes: str, port: int = 0) -> Iterator[int]:
    """An SCP that keeps what it gets, in these transfer syntaxes and native; yields its port."""
    folder.mkdir(parents=True, exist_ok=True)

    def keep(event: evt.Event) -> int:
        assert isinstance(event.request, C_STORE)
        path = folder / f"{event.request.AffectedSOPInstanceUID}.dcm"
        if path.exists():
            return 0x0111
        path.write_bytes(event.encoded_dataset())
        return 0x0000

    entity = AE("PYNETDICOM")
    accepted = [*syntaxes, str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), accepted)
    entity.add_supported_context(Verification)
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()

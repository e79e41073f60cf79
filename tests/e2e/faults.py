"""What may go wrong at the far end of a delivery: one fault each, at every kind of destination.

Where a fault makes no sense for a kind, ``why`` says so instead of a cell.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom

from tests.conftest import peer_program
from tests.deliver.files import EXPLICIT, IMPLICIT
from tests.deliver.peers import HandPeer
from tests.deliver.places import BUCKET, client_of, credentials, object_store, objects_below
from tests.deliver.web_peer import WebPeer
from tests.e2e.node import Tree
from tests.e2e.orthanc import Orthanc, dicomweb_plugin, orthanc
from tests.e2e.peers import held_port
from tests.e2e.proxy import Proxy

FAULTS = (
    "down",
    "rejects the association",
    "refuses the syntax",
    "refuses the instance",
    "fails half way",
    "warns",
    "out of resources",
    "hangs",
    "has it already",
    "accepts and forgets",
    "killed before the receipt",
    "killed after the receipt",
)
KINDS = ("folder", "dicom", "dicomweb", "s3", "Orthanc C-STORE", "Orthanc STOW-RS")

_SECONDS = 1.5
"""That a destination waits for an answer."""
_PATIENT = 60.0
"""The same, where nobody is to give up before the node is killed."""


@dataclass(frozen=True)
class Copy:
    """An instance as a peer has it."""

    uid: str
    transfer_syntax: str
    dataset: bytes
    """Without the meta group, which names who received it."""
    file: bytes = b""
    """As a whole, of a peer that keeps files."""


type Copies = Callable[[], list[Copy]]
"""What the peer has, each as often as it took it."""


def nothing() -> None:
    """It stays as it is."""


@dataclass
class Cell:
    """One kind of destination with one fault."""

    kind: str
    fault: str
    section: Tree
    copies: Copies
    heal: Callable[[], None] = nothing
    tries: Callable[[str], int] | None = None
    """How often the peer was offered an instance; None: it does not count."""
    prepare: Callable[[list[Path]], None] = lambda paths: None
    """Called with what will be sent."""
    forget: Callable[[], None] | None = None
    """Have the peer lose what it has taken."""
    can_be_asked: bool = True
    convert: str = "original"
    is_held: bool = False
    """For good, whatever is tried; else it is delivered in the end."""
    status: str = ""
    """The peer's word in the ledger."""
    is_at_once: bool = False
    """It is delivered, or held, before anything is healed."""
    heals_first: bool = False
    """Before the kill: while it lasts nobody can kill the node."""
    says_nothing: bool = False
    """No failure is to be seen while it lasts."""
    means: str = ""
    """What the fault is here, where its name does not say it."""

    @property
    def keeps_files(self) -> bool:
        """The peer has the files as they were sent."""
        return self.kind not in ("dicom", "Orthanc C-STORE")

    @property
    def is_killed(self) -> bool:
        return self.fault.startswith("killed")


@dataclass
class Matrix:
    """The cells that there are, and why there are no others."""

    cells: list[Cell] = field(default_factory=list)
    why: dict[tuple[str, str], str] = field(default_factory=dict)

    def lacks(self, kind: str, **reasons: str) -> None:
        for fault, reason in reasons.items():
            self.why[kind, fault.replace("_", " ")] = reason


def copy_of(content: bytes) -> Copy:
    """Of a file."""
    read = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
    dataset = content[144 + int.from_bytes(content[140:144], "little") :]
    return Copy(str(read.SOPInstanceUID), str(read.file_meta.TransferSyntaxUID), dataset, content)


# -- folders ---------------------------------------------------------------------------------------


def folder_cells(stack: ExitStack, folder: Path, matrix: Matrix) -> None:
    def of(fault: str, root: Path, **more: Any) -> Cell:
        def copies() -> list[Copy]:
            return [copy_of(path.read_bytes()) for path in sorted(root.rglob("*.dcm"))]

        section = {"kind": "folder", "path": str(root)}
        return Cell("folder", fault, section, copies, **more)

    cells = matrix.cells
    below = folder / "below-a-file" / "archive"
    below.parent.touch()
    cells.append(of("down", below, heal=below.parent.unlink))
    matrix.lacks(
        "folder",
        refuses_the_syntax="a folder takes every file",
        refuses_the_instance="a folder takes every file",
        warns="a folder has no warnings",
        has_it_already="what we killed left: see below",
    )
    lost = folder / "lost"

    def lose() -> None:
        for path in lost.rglob("*.dcm"):
            path.unlink()

    cells.append(of("accepts and forgets", lost, forget=lose, is_at_once=True))
    cells.append(of("killed before the receipt", folder / "before", says_nothing=True))
    cells.append(of("killed after the receipt", folder / "after", is_at_once=True))
    for fault, size, heal_options, means in (
        ("rejects the association", "1m", "remount,rw", "mounted read-only"),
        ("fails half way", "64k", "remount,size=1m", "room for half a file"),
        ("out of resources", "16k", "remount,size=1m", "not a byte left"),
    ):
        place = folder / fault.replace(" ", "-")
        if not _mounted(stack, place, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
            matrix.lacks(
                "folder", **{fault.replace(" ", "_"): "no file system can be mounted here"}
            )
            continue
        root = place / "archive"
        root.mkdir()
        if fault == "rejects the association":
            _mount("-o", "remount,ro", str(place))
        else:
            _fill(place, 4096 if fault == "fails half way" else 0)

        def heal(place: Path = place, options: str = heal_options) -> None:
            _mount("-o", options, str(place))

        cells.append(of(fault, root, heal=heal, means=means))
    frozen = folder / "frozen"
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(8 * 2**20)
    subprocess.run([peer_program("mkfs.ext4"), "-q", str(image)], check=True)
    if not _mounted(stack, frozen, "-o", "loop", str(image)):
        matrix.lacks("folder", hangs="no file system can be mounted here")
        return
    (frozen / "archive").mkdir()

    def thaw() -> None:
        subprocess.run(
            [peer_program("fsfreeze"), "-u", str(frozen)], check=False, capture_output=True
        )

    stack.callback(thaw)
    subprocess.run([peer_program("fsfreeze"), "-f", str(frozen)], check=True)
    cells.append(
        of(
            "hangs",
            frozen / "archive",
            heal=thaw,
            heals_first=True,
            says_nothing=True,
            means="frozen",
        )
    )


def _mounted(stack: ExitStack, place: Path, *what: str) -> bool:
    place.mkdir()
    done = _mount(*what, str(place))
    if done:
        stack.callback(subprocess.run, ["umount", str(place)], check=True)
    return done


def _mount(*what: str) -> bool:
    return not subprocess.run(["mount", *what], check=False, capture_output=True).returncode


def _fill(place: Path, left: int) -> None:
    """Take all but so many bytes."""
    room = os.statvfs(place)
    with (place / "ballast").open("wb") as file:
        file.write(bytes(room.f_bavail * room.f_frsize - left))


# -- peers spoken by hand ------------------------------------------------------------------------


def dicom_cells(stack: ExitStack, folder: Path, matrix: Matrix) -> None:
    held = stack.enter_context(ExitStack())

    def of(fault: str, peer: HandPeer, **more: Any) -> None:
        is_up = fault != "down"
        if is_up:
            stack.enter_context(peer)
        had: list[Copy] = []

        def heal() -> None:
            if not is_up:
                held.close()
                stack.enter_context(peer)
            peer.reject, peer.answer = None, lambda number: 0x0000

        def copies() -> list[Copy]:
            took = (0x0000, 0xB000, *(("silence",) if fault.startswith("killed") else ()))
            return had + [
                Copy(each.sop_instance_uid, each.transfer_syntax, each.dataset)
                for each, answer in zip(peer.stored, peer.answers, strict=False)
                if answer in took
            ]

        def prepare(paths: list[Path]) -> None:
            if fault == "has it already":
                had.extend(copy_of(path.read_bytes()) for path in paths)

        def tries(uid: str) -> int:
            return sum(each.sop_instance_uid == uid for each in peer.stored)

        section = {
            "kind": "dicom",
            "host": "127.0.0.1",
            "port": peer.port,
            "ae_title": "PACS",
            "answer_seconds": _PATIENT if fault.startswith("killed") else _SECONDS,
        }
        values = {"heal": nothing if more.get("is_at_once") else heal, "prepare": prepare, **more}
        values = {"status": "0000", "tries": tries, "can_be_asked": False, **values}
        matrix.cells.append(Cell("dicom", fault, section, copies, **values))

    def native(sop_class: str, syntax: str) -> bool:
        return syntax in (EXPLICIT, IMPLICIT)

    of("down", HandPeer(port=held.enter_context(held_port())))
    of("rejects the association", HandPeer(reject=(1, 1, 3)))
    of("refuses the syntax", HandPeer(accepts=native), convert="htj2k", is_at_once=True)
    refusing = HandPeer(answer=lambda number: 0xA900)
    of("refuses the instance", refusing, is_held=True, is_at_once=True)
    of("fails half way", HandPeer(answer=lambda number: "close"))
    of("warns", HandPeer(answer=lambda number: 0xB000), is_at_once=True, status="B000")
    of("out of resources", HandPeer(answer=lambda number: 0xA700))
    of("hangs", HandPeer(answer=lambda number: "silence"))
    of("has it already", HandPeer(answer=lambda n: 0x0111), is_at_once=True, status="0111")
    forgetful = HandPeer()

    def forget() -> None:
        forgetful.stored.clear()
        forgetful.answers.clear()

    of("accepts and forgets", forgetful, is_at_once=True, forget=forget)
    silent = HandPeer(answer=lambda number: "silence")
    of("killed before the receipt", silent, says_nothing=True)
    of("killed after the receipt", HandPeer(), is_at_once=True)


def dicomweb_cells(stack: ExitStack, folder: Path, matrix: Matrix) -> None:
    held = stack.enter_context(ExitStack())

    def of(fault: str, peer: WebPeer, **more: Any) -> None:
        is_up = fault != "down"
        if is_up:
            stack.enter_context(peer)

        def heal() -> None:
            if not is_up:
                held.close()
                stack.enter_context(peer)
            peer.answer = lambda number: "stored"

        def copies() -> list[Copy]:
            return [copy_of(content) for each in peer.stored.values() for content in each]

        def prepare(paths: list[Path]) -> None:
            if fault == "has it already":
                peer.stored.update(
                    {copy_of(content).uid: [content] for content in map(Path.read_bytes, paths)}
                )

        seconds = _PATIENT if fault.startswith("killed") else _SECONDS
        section = {"kind": "dicomweb", "url": peer.url, "answer_seconds": seconds}
        values = {"heal": nothing if more.get("is_at_once") else heal, "prepare": prepare, **more}
        if fault != "fails half way":  # It does not know what would have come in the other half.
            values["tries"] = peer.offered.__getitem__
        values = {"status": "0000", **values}
        matrix.cells.append(Cell("dicomweb", fault, section, copies, **values))

    of("down", WebPeer(port=held.enter_context(held_port())))
    of("rejects the association", WebPeer(answer=lambda number: 401), means="HTTP 401")
    wants_native = WebPeer(refuses=lambda syntax: syntax != EXPLICIT)
    of("refuses the syntax", wants_native, convert="htj2k", is_at_once=True)
    refusing = WebPeer(answer=lambda number: "reason A900")
    of("refuses the instance", refusing, is_held=True, is_at_once=True)
    of("fails half way", WebPeer(answer=lambda number: "half"))
    warning = WebPeer(answer=lambda number: "warning B000")
    of("warns", warning, is_at_once=True, status="B000")
    of("out of resources", WebPeer(answer=lambda number: "reason A700"))
    of("hangs", WebPeer(answer=lambda number: "silence"))
    knowing = WebPeer(answer=lambda number: "reason 0111")
    of("has it already", knowing, is_at_once=True, status="0111")
    forgetful = WebPeer(answer=lambda number: "forgotten")
    of("accepts and forgets", forgetful, is_at_once=True, forget=nothing)
    of("killed before the receipt", WebPeer(answer=lambda number: "kept"), says_nothing=True)
    of("killed after the receipt", WebPeer(), is_at_once=True)


# -- object stores -----------------------------------------------------------------------------------


def s3_cells(stack: ExitStack, folder: Path, matrix: Matrix) -> None:
    keys = {name: {"file": str(at["file"])} for name, at in credentials(folder).items()}
    store = stack.enter_context(object_store())
    client = client_of(store)

    def of(fault: str, how: str = "", **more: Any) -> None:
        prefix = fault.replace(" ", "-")
        sign = f"/{BUCKET}/{prefix}/2.25".encode()  # Of an object, and not of the probe.
        proxy = stack.enter_context(
            Proxy(int(store.rpartition(":")[2]), how, sign=lambda data: sign in data)
        )

        def mine() -> dict[str, bytes]:
            return objects_below(client, f"{prefix}/")

        def lose() -> None:
            for key in mine():
                client.delete_object(Bucket=BUCKET, Key=key)

        section = {
            "kind": "s3",
            "bucket": BUCKET,
            "prefix": prefix,
            "endpoint": f"http://127.0.0.1:{proxy.port}",
            "answer_seconds": _PATIENT if fault.startswith("killed") else _SECONDS,
            "max_connections": 1,
            **keys,
        }
        values: dict[str, Any] = {"heal": proxy.heal, **more}
        if fault == "accepts and forgets":
            values["forget"] = lose
        matrix.cells.append(
            Cell(
                "s3", fault, section, lambda: [copy_of(each) for each in mine().values()], **values
            )
        )

    of("down", "down")
    of("rejects the association", "403", means="HTTP 403")
    of("fails half way", "half")
    of("out of resources", "503", means="HTTP 503")
    of("hangs", "silence")
    of("accepts and forgets", is_at_once=True)
    of("killed before the receipt", "mute", says_nothing=True)
    of("killed after the receipt", is_at_once=True)
    matrix.lacks(
        "s3",
        refuses_the_syntax="a store does not look into objects",
        refuses_the_instance="a store does not look into objects",
        warns="a store has no warnings",
        has_it_already="what we killed left: see below",
    )


# -- Orthanc -------------------------------------------------------------------------------------------


def orthanc_cells(stack: ExitStack, folder: Path, matrix: Matrix) -> None:
    """One process for each fault that is the process's, both ways in; HTJ2K where it takes that."""
    store, stow = "Orthanc C-STORE", "Orthanc STOW-RS"
    settings: dict[str, Any] = {"Plugins": [dicomweb_plugin()], "DicomAlwaysAllowFind": True}

    def start(name: str, ports: tuple[int, int] | None = None, **more: Any) -> Orthanc:
        return stack.enter_context(orthanc(folder / name, ports, **(settings | more)))

    def of(
        fault: str,
        peer: Orthanc,
        how: str = "",
        kinds: tuple[str, ...] = (store, stow),
        **more: Any,
    ) -> None:
        for kind in kinds:
            uids: list[str] = []
            is_store = kind == store
            port = peer.port if is_store else peer.web_port
            sign = _is_p_data if is_store else _is_store_request
            proxy = stack.enter_context(Proxy(port, how, sign=sign))

            def heal(proxy: Proxy = proxy) -> None:
                proxy.how = ""
                if "heal" in more:
                    more["heal"]()

            def copies(uids: list[str] = uids) -> list[Copy]:
                names = peer.instances()
                found = [names[uid] for uid in uids if uid in names]
                return [copy_of(peer.save(n, folder / "saved.dcm").read_bytes()) for n in found]

            def prepare(paths: list[Path], uids: list[str] = uids) -> None:
                uids += [str(pydicom.dcmread(path).SOPInstanceUID) for path in paths]
                if fault == "has it already":
                    for path in paths:
                        peer.import_file(path)

            def lose(uids: list[str] = uids) -> None:
                names = peer.instances()
                for uid in uids:
                    peer.delete(names[uid])

            seconds = _PATIENT if fault.startswith("killed") else 2 * _SECONDS
            port = proxy.port if how else port
            section = {
                "kind": "dicom",
                "host": "127.0.0.1",
                "port": port,
                "ae_title": "ORTHANC",
                "answer_seconds": seconds,
            }
            if not is_store:
                url = f"http://127.0.0.1:{port}/dicom-web"
                section = {"kind": "dicomweb", "url": url, "answer_seconds": seconds}
            convert = "original" if fault == "has it already" else "htj2k"
            values = {"status": "0000", "convert": convert, **more, "heal": heal}
            if fault == "accepts and forgets":
                values["forget"] = lose
            matrix.cells.append(Cell(kind, fault, section, copies, prepare=prepare, **values))

    good = start("good")
    of("fails half way", good, "half")
    of("has it already", good, is_at_once=True)
    of("accepts and forgets", good, is_at_once=True)
    of("killed before the receipt", good, "mute", says_nothing=True)
    of("killed after the receipt", good, is_at_once=True)

    held = stack.enter_context(ExitStack())
    ports = (held.enter_context(held_port()), held.enter_context(held_port()))
    with orthanc(folder / "stopped", **settings) as stopped:
        stopped.port, stopped.web_port = ports

    def start_again() -> None:
        held.close()
        if stopped.pid:
            start("stopped", ports)
            stopped.pid = 0

    of("down", stopped, heal=start_again, means="stopped, and started again")

    strange = stack.enter_context(ExitStack())
    stranger = strange.enter_context(
        orthanc(
            folder / "strange",
            **settings,
            DicomAet="OTHER",
            DicomCheckCalledAet=True,
            AuthenticationEnabled=True,
            RegisteredUsers={"somebody": "else"},
        )
    )

    def know() -> None:
        if stranger.pid:
            strange.close()
            start("strange", (stranger.port, stranger.web_port))
            stranger.pid = 0

    of("rejects the association", stranger, heal=know, means="knows other titles and users")

    old = start("old", AcceptedTransferSyntaxes=[IMPLICIT, EXPLICIT])
    of("refuses the syntax", old, kinds=(store,), is_at_once=True)

    hung = start("hung")

    def wake() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(hung.pid, signal.SIGCONT)

    stack.callback(wake)
    os.kill(hung.pid, signal.SIGSTOP)
    of("hangs", hung, heal=wake, means="SIGSTOP")

    why = "Orthanc takes what it can parse"
    matrix.lacks(store, refuses_the_instance=why, warns="Orthanc has no warnings")
    matrix.lacks(
        stow, refuses_the_syntax=why, refuses_the_instance=why, warns="Orthanc has no warnings"
    )

    disk = folder / "disk"
    if not _mounted(stack, disk, "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        for kind in (store, stow):
            matrix.lacks(kind, out_of_resources="no file system can be mounted here")
        return
    full = start("full", StorageDirectory=str(disk / "storage"))
    _fill(disk, 0)
    room = disk / "ballast"
    of(
        "out of resources",
        full,
        heal=lambda: room.unlink(missing_ok=True),
        means="its disk is full",
    )


def _is_p_data(data: bytes) -> bool:
    """A P-DATA-TF PDU (PS3.8 9.3.5)."""
    return data[0] == 4


def _is_store_request(data: bytes) -> bool:
    return b"POST /dicom-web/studies" in data


@contextmanager
def all_cells(folder: Path) -> Iterator[Matrix]:
    """Every kind with every fault that it can have."""
    with ExitStack() as stack:
        matrix = Matrix()
        for make in (folder_cells, dicom_cells, dicomweb_cells, s3_cells, orthanc_cells):
            here = folder / make.__name__
            here.mkdir()
            make(stack, here, matrix)
        yield matrix

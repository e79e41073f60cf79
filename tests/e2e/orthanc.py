"""Orthanc, a PACS that many have, as a peer."""

import json
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.conftest import IN_CI, peer_program
from tests.e2e.node import START_SECONDS, until
from tests.e2e.peers import free_port


class Orthanc:
    """One that runs, asked by its REST interface."""

    def __init__(self, dicom_port: int, web_port: int) -> None:
        self.port = dicom_port
        self.web_port = web_port
        self.pid = 0

    def instances(self) -> dict[str, str]:
        """Its own name of every instance, by SOP Instance UID."""
        found = json.loads(self._ask("/instances?expand"))
        return {each["MainDicomTags"]["SOPInstanceUID"]: each["ID"] for each in found}

    def save(self, name: str, path: Path) -> Path:
        """Fetch an instance as it is stored."""
        path.write_bytes(self._ask(f"/instances/{name}/file"))
        return path

    def import_file(self, path: Path) -> str:
        answer: dict[str, str] = json.loads(self._ask("/instances", path.read_bytes()))
        return answer["ID"]

    def know(self, port: int) -> None:
        """Have it know the node, for everything."""
        peer = {"AET": "DCMPRESS", "Host": "127.0.0.1", "Port": port}
        self._ask("/modalities/dcmpress", json.dumps(peer).encode(), "PUT")

    def ask_for_commitment(self, pairs: Iterable[tuple[str, str]]) -> str:
        """Have it ask the node to vouch for (SOP class, SOP instance) pairs; its transaction."""
        order = json.dumps({"DicomInstances": [list(pair) for pair in pairs]}).encode()
        answer = json.loads(self._ask("/modalities/dcmpress/storage-commitment", order))
        transaction: str = answer["ID"]
        return transaction

    def commitment(self, transaction: str) -> dict[str, Any]:
        """What it was told of that."""
        report: dict[str, Any] = json.loads(self._ask(f"/storage-commitment/{transaction}"))
        return report

    def delete(self, name: str) -> None:
        self._ask(f"/instances/{name}", method="DELETE")

    def send(self, names: list[str], port: int) -> dict[str, Any]:
        """Have it send instances by C-STORE; its report."""
        self.know(port)
        order = json.dumps({"Resources": names, "Synchronous": True}).encode()
        report: dict[str, Any] = json.loads(self._ask("/modalities/dcmpress/store", order))
        return report

    def is_ready(self) -> bool:
        try:
            return bool(self._ask("/system"))
        except HTTPError:
            return True  # It wants to know who asks.
        except OSError:
            return False

    @property
    def dicomweb(self) -> str:
        """The URL of its DICOMweb service, with the plugin."""
        return f"http://127.0.0.1:{self.web_port}/dicom-web"

    def search(self, query: str) -> list[dict[str, Any]]:
        """By QIDO-RS (PS3.18 section 10.6)."""
        accept = {"Accept": "application/dicom+json"}
        found: list[dict[str, Any]] = json.loads(self._ask(f"/dicom-web{query}", headers=accept))
        return found

    def retrieve(self, place: str) -> bytes:
        """The file of an instance by WADO-RS (PS3.18 section 10.4), in the syntax that it is stored in."""
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        answer = self._ask(f"/dicom-web{place}", headers={"Accept": accept})
        boundary, _, rest = answer.partition(b"\r\n")
        content = rest.partition(b"\r\n\r\n")[2]
        return content[: content.rindex(b"\r\n" + boundary)]

    def _ask(
        self,
        path: str,
        body: bytes | None = None,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.web_port}{path}", body, dict(headers or {}), method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the loopback
            content: bytes = answer.read()
            return content


def dicomweb_plugin() -> str:
    """The plugin of Debian's package orthanc-dicomweb; without it the test skips, in CI it fails."""
    path = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    if not path.exists():
        message = "Orthanc's DICOMweb plugin is not installed: scripts/install-peers installs it"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    return str(path)


@contextmanager
def orthanc(folder: Path, ports: tuple[int, int] | None = None, **more: Any) -> Iterator[Orthanc]:
    """Start one that takes everything and knows nobody; ``more`` settings as of its own file.

    In a folder that one has had before it has what that one had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    running = Orthanc(*(ports or (free_port(), free_port())))
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomPort": running.port,
        "HttpPort": running.web_port,
        "RemoteAccessAllowed": False,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "Plugins": [],
        **more,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("ab") as log:
        process = subprocess.Popen(
            [peer_program("Orthanc"), str(folder / "orthanc.json")], stdout=log, stderr=log
        )
    running.pid = process.pid
    try:
        until(running.is_ready, (folder / "orthanc.log").read_text, START_SECONDS)
        yield running
    finally:
        process.terminate()
        process.wait(30)

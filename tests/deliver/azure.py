"""Azure Blob Storage, as Microsoft's own emulator speaks it: Azurite, which is an npm package."""

import base64
import hashlib
import hmac
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import pytest
import urllib3

from tests.e2e.node import until

ACCOUNT = "gateway"
CONTAINER = "ct-archive"
START_SECONDS = 60.0

_VERSION = "2023-11-03"


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass
class Azurite:
    """One with an empty container."""

    key: str = field(default_factory=_new_key)
    root: str = ""

    @property
    def endpoint(self) -> str:
        return f"{self.root}/{ACCOUNT}"

    def create_container(self) -> None:
        self._ask("PUT", "", restype="container")

    def blobs(self) -> dict[str, bytes]:
        listed = ElementTree.fromstring(  # noqa: S314 - our own emulator's
            self._ask("GET", "", comp="list", restype="container")
        )
        names = [name.text or "" for name in listed.iterfind("Blobs/Blob/Name")]
        return {name: self._ask("GET", f"/{quote(name)}") for name in names}

    def _ask(self, method: str, path: str, **query: str) -> bytes:
        """One request, signed with the account's key ("Authorize with Shared Key")."""
        date = formatdate(usegmt=True)
        resource = f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}{path}"
        resource += "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
        headers = f"x-ms-date:{date}\nx-ms-version:{_VERSION}\n"
        text = f"{method}{12 * '\n'}{headers}{resource}"
        digest = hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()
        answer = urllib3.request(
            method,
            f"{self.endpoint}/{CONTAINER}{path}?{urlencode(query)}",
            headers={
                "x-ms-date": date,
                "x-ms-version": _VERSION,
                "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
            },
        )
        assert answer.status in (200, 201), answer.data
        return answer.data


@contextmanager
def azurite(folder: Path) -> Iterator[Azurite]:
    """Start one on any port; without it the test skips, for npm is not everywhere."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not installed: scripts/install-peers does it where npm is")
    running = Azurite()
    log = folder / "azurite.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                *(program, "--blobHost", "127.0.0.1", "--blobPort", "0"),
                *("--inMemoryPersistence", "--disableTelemetry"),
            ],
            env=os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{running.key}"},
            cwd=folder,
            stdout=file,
            stderr=file,
        )
    try:
        listens = re.compile(r"listens on (http://\S+)")
        until(lambda: bool(listens.search(log.read_text())), log.read_text, START_SECONDS)
        (running.root,) = listens.findall(log.read_text())
        running.create_container()
        yield running
    finally:
        process.terminate()
        process.wait(30)

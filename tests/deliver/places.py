"""Real peers of every kind of destination, as one thing to deliver to and to look into."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import urllib3
from moto.server import ThreadedMotoServer

from scp.config.remote import AzureDestination, S3Destination
from scp.config.remote import DicomwebDestination as DicomwebSection
from scp.config.schema import DicomDestination as DicomSection
from scp.config.schema import FolderDestination
from scp.deliver.dicom import DicomDestination
from scp.deliver.dicomweb import DicomwebDestination
from scp.deliver.folder import FolderDestinationWriter
from scp.deliver.object_store import PROBE, ObjectStoreWriter
from scp.deliver.ports import Destination
from scp.durable import Disk
from tests.deliver.azure import ACCOUNT, CONTAINER, Azurite, azurite
from tests.deliver.files import dataset_bytes, no_decoder
from tests.e2e.orthanc import Orthanc, dicomweb_plugin, orthanc
from tests.e2e.peers import free_port, pynetdicom_archive

BUCKET = "ct-archive"
REGION = "us-east-1"


@dataclass(frozen=True)
class Place:
    """Somewhere to deliver to."""

    new: Callable[..., Destination]
    """A destination that leads there, with keys of its section."""
    stored: Callable[[str], list[bytes]]
    """What is there of a SOP Instance UID, as the peer keeps it."""
    bytes_of: Callable[[Path], bytes]
    """Of a file, what the peer keeps."""
    unreachable: Callable[[], Destination]
    """A destination of the kind where nobody listens."""


type Kind = Callable[[Path], AbstractContextManager[Place]]


@contextmanager
def folder_place(folder: Path) -> Iterator[Place]:
    root = folder / "archive"
    (folder / "file").touch()

    def new(path: Path = root, **more: Any) -> Destination:
        section = FolderDestination(kind="folder", path=path, **more)
        return FolderDestinationWriter("folder", section, Disk())

    def stored(uid: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted(root.rglob(f"{uid}[.~]*dcm"))]

    yield Place(new, stored, Path.read_bytes, lambda: new(folder / "file" / "below"))


@contextmanager
def dicom_place(folder: Path) -> Iterator[Place]:
    root = folder / "pacs"
    with pynetdicom_archive(root) as port:

        def new(port: int = port, **more: Any) -> Destination:
            section = DicomSection(
                kind="dicom", host="127.0.0.1", port=port, ae_title="PACS", **more
            )
            return DicomDestination("dicom", section, no_decoder)

        def stored(uid: str) -> list[bytes]:
            return [dataset_bytes(path) for path in root.glob(f"{uid}.dcm")]

        yield Place(new, stored, dataset_bytes, lambda: new(free_port()))


@contextmanager
def dicomweb_place(folder: Path) -> Iterator[Place]:
    with orthanc(folder / "orthanc", Plugins=[dicomweb_plugin()]) as running:
        yield place_of_orthanc(running, folder)


def place_of_orthanc(running: Orthanc, folder: Path) -> Place:
    def new(url: str = running.dicomweb, **more: Any) -> Destination:
        section = DicomwebSection(kind="dicomweb", url=url, **more)
        return DicomwebDestination("dicomweb", section, no_decoder)

    def stored(uid: str) -> list[bytes]:
        name = running.instances().get(uid)
        return [running.save(name, folder / "stored.dcm").read_bytes()] if name else []

    return Place(
        new, stored, Path.read_bytes, lambda: new(f"http://127.0.0.1:{free_port()}/dicom-web")
    )


@contextmanager
def object_store() -> Iterator[str]:
    """moto's S3 with an empty bucket; its URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        url = f"http://127.0.0.1:{port}"
        # All servers of this process share what is stored.
        urllib3.request("POST", f"{url}/moto-api/reset")
        client_of(url).create_bucket(Bucket=BUCKET)
        yield url
    finally:
        server.stop()


def client_of(url: str) -> Any:
    """Amazon's own client."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="key",
        aws_secret_access_key="secret",  # noqa: S106 - moto takes any
        region_name=REGION,
    )


def s3_section(url: str, **more: Any) -> S3Destination:
    """Leads to the bucket; the credentials are in files beside nothing else."""
    values = {"bucket": BUCKET, "endpoint": url, **more}
    return S3Destination.model_validate({"kind": "s3", **values})


def credentials(folder: Path) -> dict[str, Any]:
    """Keys of the section, with their files."""
    found = {}
    for name in ("access_key_id", "secret_access_key"):
        (folder / name).write_text(f"{name}\n")
        found[name] = {"file": folder / name}
    return found


@contextmanager
def s3_place(folder: Path) -> Iterator[Place]:
    keys = credentials(folder)
    with object_store() as url:

        def new(url: str = url, **more: Any) -> Destination:
            section = s3_section(url, prefix="dicom", **keys, **more)
            return ObjectStoreWriter("s3", section)

        def stored(uid: str) -> list[bytes]:
            return [content for key, content in sorted(objects_in(url).items()) if f"/{uid}" in key]

        yield Place(new, stored, Path.read_bytes, lambda: new(f"http://127.0.0.1:{free_port()}"))


def objects_in(url: str) -> dict[str, bytes]:
    """Every object of the bucket but the probe."""
    return objects_below(client_of(url), "")


def objects_below(client: Any, prefix: str) -> dict[str, bytes]:
    """Those whose keys begin so."""
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return {
        each["Key"]: client.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read()
        for each in listed
        if not each["Key"].endswith(PROBE)
    }


def azure_section(running: Azurite, folder: Path, **more: Any) -> AzureDestination:
    """Leads to its container; the key is in a file of the folder."""
    (folder / "key").write_text(f"{running.key}\n")
    values = {"account": ACCOUNT, "container": CONTAINER, "endpoint": running.endpoint, **more}
    key = {"file": folder / "key"}
    return AzureDestination.model_validate({"kind": "azure", "access_key": key, **values})


@contextmanager
def azure_place(folder: Path) -> Iterator[Place]:
    with azurite(folder) as running:

        def new(**more: Any) -> Destination:
            section = azure_section(running, folder, prefix="dicom", **more)
            return ObjectStoreWriter("azure", section)

        def stored(uid: str) -> list[bytes]:
            return [content for key, content in sorted(running.blobs().items()) if f"/{uid}" in key]

        unreachable = f"http://127.0.0.1:{free_port()}/{ACCOUNT}"
        yield Place(new, stored, Path.read_bytes, lambda: new(endpoint=unreachable))


KINDS: dict[str, Kind] = {
    "folder": folder_place,
    "dicom": dicom_place,
    "dicomweb": dicomweb_place,
    "s3": s3_place,
    "azure": azure_place,
}

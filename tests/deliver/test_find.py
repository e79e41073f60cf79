"""A peer is asked what it has in the way in which instances are sent to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from scp.config.network import RequestorTls
from scp.config.schema import DicomDestination
from scp.deliver.find import find_peer
from scp.errors import PeerUnavailableError
from scp.tls import server_context
from tests.certificates import Authority

STUDY, SERIES, INSTANCE = "1.2", "1.2.3", "1.2.3.4"


def answer(event: Event) -> Iterator[tuple[int, Dataset]]:
    asked = event.identifier
    found = Dataset()
    found.QueryRetrieveLevel = asked.QueryRetrieveLevel
    found.StudyInstanceUID = STUDY
    found.SeriesInstanceUID = SERIES
    if asked.QueryRetrieveLevel == "IMAGE":
        found.SOPInstanceUID = INSTANCE
    yield 0xFF00, found


@contextmanager
def peer(authority: Authority) -> Iterator[int]:
    """An archive behind TLS that wants a certificate; its port."""
    certificate, key = authority.issue()
    context = server_context(
        certificate=certificate, key=key, ca=authority.file, client_certificate="required"
    )
    entity = AE("PACS")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        ssl_context=context,
        evt_handlers=[(evt.EVT_C_FIND, answer)],
    )
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def section(port: int, tls: RequestorTls | None) -> DicomDestination:
    return DicomDestination(kind="dicom", host="localhost", port=port, ae_title="PACS", tls=tls)


def test_a_peer_behind_tls_is_asked_through_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("dcmpress")
    ours = RequestorTls(ca=authority.file, certificate=certificate, key=key)

    with peer(authority) as port, find_peer(section(port, ours), "DCMPRESS") as asked:
        assert list(asked.instances_of(STUDY)) == [INSTANCE]


def test_a_peer_that_is_not_believed_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    certificate, key = authority.issue("dcmpress")
    ours = RequestorTls(ca=other.file, certificate=certificate, key=key)

    with (
        peer(authority) as port,
        pytest.raises(PeerUnavailableError, match="cannot be reached"),
        find_peer(section(port, ours), "DCMPRESS"),
    ):
        pass

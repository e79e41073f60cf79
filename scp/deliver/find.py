"""C-FIND: which instances a DICOM node has of a study (PS3.4 annex C, Study Root)."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from scp.config.schema import DicomDestination
from scp.errors import DeliveryError, PeerUnavailableError
from scp.tls import client_context

_PENDING: Final = (0xFF00, 0xFF01)
_MODEL: Final = StudyRootQueryRetrieveInformationModelFind


class FindPeer:
    """A node that can be asked, over one association."""

    def __init__(self, association: Association) -> None:
        self._association = association

    def instances_of(self, study_instance_uid: str) -> Iterator[str]:
        """The SOP Instance UIDs that it has of a study, series by series: every peer has to know that.

        Raises
        ------
        DeliveryError
            It answers with a failure.
        PeerUnavailableError
            It does not answer.
        """
        above = {"StudyInstanceUID": study_instance_uid}
        for series in list(self._find("SERIES", "SeriesInstanceUID", above)):
            yield from self._find("IMAGE", "SOPInstanceUID", {**above, "SeriesInstanceUID": series})

    def _find(self, level: str, wanted: str, above: dict[str, str]) -> Iterator[str]:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        for keyword, uid in above.items():
            setattr(identifier, keyword, uid)
        setattr(identifier, wanted, "")
        for status, found in self._association.send_c_find(identifier, _MODEL):
            if "Status" not in status:
                raise PeerUnavailableError("the peer did not answer a C-FIND")
            if status.Status in _PENDING:
                uid = str(getattr(found, wanted, ""))
                if uid:
                    yield uid
            elif status.Status:
                raise DeliveryError(
                    f"the peer answers a C-FIND at level {level} with status {status.Status:04X}"
                )


@contextmanager
def find_peer(section: DicomDestination, calling_ae_title: str) -> Iterator[FindPeer]:
    """Associate with a destination to ask it.

    Raises
    ------
    PeerUnavailableError
        There is no association.
    DeliveryError
        The peer does not take C-FIND.
    CertificateError
        Ours, or whose we believe, cannot be used.
    """
    entity = AE(ae_title=calling_ae_title)
    entity.connection_timeout = section.connect_seconds
    entity.acse_timeout = entity.dimse_timeout = section.answer_seconds
    entity.network_timeout = section.answer_seconds
    entity.add_requested_context(_MODEL)
    association = entity.associate(
        section.host, section.port, ae_title=section.ae_title, tls_args=_tls_args(section)
    )
    if not association.is_established:
        if association.is_rejected:
            raise DeliveryError(f"{section.place} rejects the association of {calling_ae_title}")
        if association.rejected_contexts:
            raise DeliveryError(f"{section.place} takes no C-FIND (Study Root)")
        raise PeerUnavailableError(f"{section.place} cannot be reached")
    try:
        yield FindPeer(association)
    finally:
        association.release()


def _tls_args(section: DicomDestination) -> tuple[ssl.SSLContext, str] | None:
    """What instances are sent to the peer through; None: plain."""
    pair = section.tls
    if pair is None:
        return None
    context = client_context(
        ca=pair.ca, certificate=pair.certificate, key=pair.key, check_host=pair.check_host
    )
    return context, section.host

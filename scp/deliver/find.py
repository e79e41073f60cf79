"""C-FIND: which instances a DICOM node has of a study (PS3.4 annex C, Study Root)."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from scp.config.schema import DicomDestination
from scp.errors import CountsOnlyError, DeliveryError, PeerUnavailableError
from scp.tls import client_context

_COUNT: Final = "NumberOfSeriesRelatedInstances"
_PENDING: Final = (0xFF00, 0xFF01)
_MODEL: Final = StudyRootQueryRetrieveInformationModelFind


class FindPeer:
    """A node that can be asked, over one association."""

    def __init__(self, association: Association) -> None:
        self._association = association

    def instances_of(self, study_instance_uid: str) -> list[str]:
        """The SOP Instance UIDs that it has of a study, series by series: every peer has to know that.

        Raises
        ------
        CountsOnlyError
            It does not say which, only how many.
        DeliveryError
            It answers with a failure.
        PeerUnavailableError
            It does not answer.
        """
        above = {"StudyInstanceUID": study_instance_uid}
        counts = {
            str(found.SeriesInstanceUID): _count(found)
            for found in self._find("SERIES", "SeriesInstanceUID", above, _COUNT)
        }
        instances: list[str] = []
        for series, count in counts.items():
            wanted = {**above, "SeriesInstanceUID": series}
            try:
                found = [
                    str(e.SOPInstanceUID) for e in self._find("IMAGE", "SOPInstanceUID", wanted)
                ]
            except PeerUnavailableError:
                raise
            except DeliveryError as error:
                raise _without_instances(counts, str(error)) from error
            if not found and count:
                raise _without_instances(
                    counts, "the peer finds none of the instances that it counts"
                )
            instances += found
        return instances

    def _find(
        self, level: str, wanted: str, above: dict[str, str], *more: str
    ) -> Iterator[Dataset]:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        for keyword, uid in above.items():
            setattr(identifier, keyword, uid)
        for keyword in (wanted, *more):
            setattr(identifier, keyword, None)
        for status, found in self._association.send_c_find(identifier, _MODEL):
            if "Status" not in status:
                raise PeerUnavailableError("the peer did not answer a C-FIND")
            if status.Status in _PENDING:
                if found is not None and found.get(wanted):
                    yield found
            elif status.Status:
                raise DeliveryError(
                    f"the peer answers a C-FIND at level {level} with status {status.Status:04X}"
                )


def _count(series: Dataset) -> int | None:
    """None: the peer does not say (the key is optional, PS3.4 table C.6-3)."""
    try:
        return int(series.get(_COUNT))
    except (TypeError, ValueError):
        return None


def _without_instances(counts: Mapping[str, int | None], why: str) -> DeliveryError:
    known = {series: count for series, count in counts.items() if count is not None}
    return CountsOnlyError(why, known) if len(known) == len(counts) else DeliveryError(why)


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

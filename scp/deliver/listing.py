"""Which instances an object store has of a study, told by the keys of its objects."""

import itertools
from typing import Final

import obstore
from obstore.store import ObjectStore

from scp.deliver.naming import PathTemplate, safe
from scp.deliver.objects import Section, connect, credentials_of, told
from scp.errors import DeliveryError

_STUDY: Final = "StudyInstanceUID"
_INSTANCE: Final = "SOPInstanceUID"


class Listing:
    """One bucket or container that can be asked."""

    def __init__(self, section: Section) -> None:
        """Connect to it when first asked.

        Raises
        ------
        DeliveryError
            Its keys do not tell which instances they are of.
        """
        self._section = section
        self._template = PathTemplate(section.keys)
        self._pattern = self._template.pattern()
        self._store: ObjectStore | None = None
        if not {_STUDY, _INSTANCE} <= self._template.tags.keys():
            raise DeliveryError(
                f"{section.place} cannot be asked: its template does not name the study and the instance"
            )

    def instances_of(self, study_instance_uid: str) -> set[str]:
        """The SOP Instance UIDs that it has of a study.

        Raises
        ------
        DeliveryError
            It cannot be asked.
        PeerRejectedError, PeerUnavailableError
            As of :class:`scp.deliver.ports.Destination`.
        """
        if self._store is None:
            self._store = connect(self._section, credentials_of(self._section))
        study = safe(study_instance_uid)
        with told():
            pages = obstore.list(
                self._store, self._template.prefix_for({_STUDY: study_instance_uid})
            )
            keys = [entry["path"] for entry in itertools.chain.from_iterable(pages)]
        found = (self._pattern.fullmatch(key) for key in keys)
        return {each[_INSTANCE] for each in found if each is not None and each[_STUDY] == study}

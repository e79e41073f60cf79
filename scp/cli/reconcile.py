"""dcmpress reconcile: has a destination what the ledger says was delivered there?"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from scp.buffer import part10
from scp.buffer.layout import Layout
from scp.cli.configuration import load_config
from scp.cli.ledger import Style, moment, show_records
from scp.cli.paths import files_in
from scp.config.remote import DicomwebDestination
from scp.config.schema import Config, DicomDestination, FolderDestination
from scp.config.words import did_you_mean
from scp.errors import CountsOnlyError, NodeError, UnreadableInstanceError, UsageError
from scp.ledger.nodes import known_name
from scp.ledger.open import open_for_reading
from scp.ledger.ports import LedgerRow, Search

type Ask = Callable[[str], Iterable[str]]
"""Study Instance UID to the SOP Instance UIDs that the destination has of it."""

_COLUMNS: Final = (
    "difference", "study_instance_uid", "series_instance_uid", "sop_instance_uid", "sources",
)  # fmt: skip


def reconcile(name: str, path: Path | None, *, since: str, until: str, style: Style) -> None:
    """Compare every study of which something was delivered there in the time given.

    Raises
    ------
    NodeError
        Something is missing there, or there is no ledger.
    DeliveryError
        The destination cannot be asked.
    UsageError
        There is no such destination, or none that can be asked.
    """
    config = load_config(path)
    layout = Layout(config.node.data)
    search = Search(
        # Another node that shares the database may call another place so.
        node=known_name(config.ledger, layout.node_name),
        destination=name,
        since=moment(since, "--since") if since else None,
        until=moment(until, "--until") if until else None,
    )
    with ExitStack() as ends:
        ask = _asking(config, name, ends)
        ledger = ends.enter_context(closing(open_for_reading(config.ledger, layout.ledger)))
        studies = ledger.studies(search)
        missing = 0

        def differences() -> Iterator[dict[str, Any]]:
            nonlocal missing
            for study in studies:
                wanted = replace(search, uid=study, since=None, until=None)
                rows = ledger.search(wanted)
                try:
                    found = _compare(rows, name, study, set(ask(study)))
                except CountsOnlyError as error:
                    found = _count(rows, name, study, error.counts)
                for record in found:
                    missing += {"missing": 1, "fewer": record["sources"]}.get(
                        record["difference"], 0
                    )
                    yield record

        found = show_records(differences(), style, _COLUMNS)
    if missing:
        raise NodeError(f"{missing} objects that the ledger calls delivered are not at {name}")
    if style == "table":
        extra = f"; it has {found} objects more" if found else ""
        noun = "study" if len(studies) == 1 else "studies"
        print(f"{name} has everything of {len(studies)} {noun}{extra}")


def _compare(
    rows: Iterable[LedgerRow], name: str, study: str, there: set[str]
) -> Iterator[dict[str, Any]]:
    """What differs in one study: ``missing`` there, or there and ``unknown`` to the ledger.

    ``original``: the destination got the object that this instance was collapsed into, and has the
    instance as well.
    """
    delivered: dict[str, int] = {}
    series: dict[str, str] = {}
    originals: set[str] = set()
    for row in rows:
        uid = row.identity.sop_instance_uid
        if row.destinations[name].is_collapsed:
            originals.add(uid)
            uid = row.became
        else:
            series[uid] = row.identity.series_instance_uid
        delivered[uid] = delivered.get(uid, 0) + 1
    for uid in sorted(delivered.keys() ^ there):
        known = "original" if uid in originals else "unknown"
        yield {
            "difference": "missing" if uid in delivered else known,
            "study_instance_uid": study,
            "series_instance_uid": series.get(uid, ""),
            "sop_instance_uid": uid,
            "sources": delivered.get(uid, 0),
        }


def _count(
    rows: Iterable[LedgerRow], name: str, study: str, there: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """What differs where a destination only says how many instances each series has there.

    ``fewer`` or ``more``, by so many in ``sources``. A study of which something was collapsed is
    counted as a whole: the ledger does not know which series the new objects are in.
    """
    delivered: dict[str, set[str]] = {}
    is_collapsed = False
    for row in rows:
        taken = row.destinations[name]
        is_collapsed = is_collapsed or taken.is_collapsed
        uid = row.became if taken.is_collapsed else row.identity.sop_instance_uid
        delivered.setdefault(row.identity.series_instance_uid, set()).add(uid)
    expected = {series: len(uids) for series, uids in delivered.items()}
    if is_collapsed:
        expected = {"": len(set().union(*delivered.values()))}
        there = {"": sum(there.values())}
    for series in sorted(expected.keys() | there.keys()):
        difference = there.get(series, 0) - expected.get(series, 0)
        if difference:
            yield {
                "difference": "more" if difference > 0 else "fewer",
                "study_instance_uid": study,
                "series_instance_uid": series,
                "sop_instance_uid": "",
                "sources": abs(difference),
            }


def _asking(config: Config, name: str, ends: ExitStack) -> Ask:
    section = config.destinations.get(name)
    if section is None:
        hint = did_you_mean(name, config.destinations)
        raise UsageError(f"no destination is called {name!r}{hint}")
    if isinstance(section, FolderDestination):
        return _Folder(section.path).instances_of
    if isinstance(section, DicomDestination):
        from scp.deliver.find import find_peer

        is_ours = section.calling_ae_title != "sender"
        calling = section.calling_ae_title if is_ours else config.node.ae_title
        return ends.enter_context(find_peer(section, calling)).instances_of
    if isinstance(section, DicomwebDestination):
        from scp.deliver.dicomweb import client_of
        from scp.deliver.qido import instances_of

        client = client_of(section)
        ends.callback(client.close)
        return lambda study: instances_of(client, study)
    from scp.deliver.listing import Listing

    return Listing(section).instances_of


class _Folder:
    """Files by study; read once, when first asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._studies: dict[str, set[str]] | None = None

    def instances_of(self, study_instance_uid: str) -> set[str]:
        if self._studies is None:
            self._studies = {}
            for path in files_in([self._path]) if self._path.is_dir() else ():
                try:
                    identity = part10.open_instance(path).identity
                except UnreadableInstanceError:
                    continue  # No DICOM file: a restore record, or something else's.
                known = self._studies.setdefault(identity.study_instance_uid, set())
                known.add(identity.sop_instance_uid)
        return self._studies.get(study_instance_uid, set())

"""QIDO-RS: which instances a DICOMweb server has (PS3.18 section 10.6)."""

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, urlencode

from scp.deliver.stow import JSON
from scp.deliver.web import Answer, WebClient
from scp.errors import DeliveryError

_PAGE: Final = 1000
_PAGES: Final = 1000
_SOP_INSTANCE: Final = "00080018"


def instances_of(
    client: WebClient, study_instance_uid: str, series_instance_uid: str = ""
) -> Iterator[str]:
    """SOP Instance UIDs that the server has of a study or of one of its series.

    Raises
    ------
    DeliveryError
        It cannot be asked, or does not answer so that it can be understood.
    PeerUnavailableError
        Not now.
    """
    path = f"/studies/{quote(study_instance_uid, safe='')}"
    if series_instance_uid:
        path += f"/series/{quote(series_instance_uid, safe='')}"
    seen: set[str] = set()
    for _ in range(_PAGES):
        # Not the limit times the page: a server may give less than was asked for (PS3.18 8.3.4.4).
        query = {"limit": _PAGE, "offset": len(seen)}
        found = set(_search(client, f"{path}/instances", query)) - seen
        yield from sorted(found)
        seen |= found
        if not found:  # Also of a server that knows no offset, and answers the same once more.
            return


def has_instance(client: WebClient, sop_instance_uid: str) -> bool:
    """Whether the server has an instance.

    Raises
    ------
    DeliveryError, PeerUnavailableError
        As of :func:`instances_of`.
    """
    query = {"SOPInstanceUID": sop_instance_uid, "limit": 1}
    return sop_instance_uid in _search(client, "/instances", query)


def _search(client: WebClient, path: str, query: dict[str, Any]) -> list[str]:
    answer = client.request("GET", f"{path}?{urlencode(query)}", headers={"Accept": JSON})
    if answer.status == 204 or (answer.status == 200 and not answer.body.strip()):
        return []
    if answer.status != 200:
        raise DeliveryError(f"the server answers a search with {answer.status}")
    return list(_uids(answer))


def _uids(answer: Answer) -> Iterator[str]:
    try:
        found = json.loads(answer.body)
        for dataset in found:
            yield str(dataset[_SOP_INSTANCE]["Value"][0])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DeliveryError("the server's answer to a search is not understood") from error

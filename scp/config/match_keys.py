"""What the keys of ``match`` name: an element of the dataset, or a fact about how it came."""

import re
from dataclasses import dataclass
from typing import Final

from pydicom.datadict import dictionary_VR, keyword_dict

from scp.config.words import did_you_mean

TEXT_FACTS: Final = ("calling_ae_title", "called_ae_title")
UID_FACTS: Final = ("transfer_syntax", "sop_class")
PEER_ADDRESS: Final = "peer_address"
INSTANCES: Final = "instances"
"""How many instances the series has: not known while it is open."""
FACTS: Final = (*TEXT_FACTS, PEER_ADDRESS, *UID_FACTS, INSTANCES)

_PRIVATE = re.compile(r"([0-9A-Fa-f]{4}),[xX]{2}([0-9A-Fa-f]{2}):(.+)", re.DOTALL)
_PRIVATE_HINT: Final = 'write a private attribute like "0019,xx0C:CREATOR"'
_OWN_KEY: Final = {
    "TransferSyntaxUID": "transfer_syntax",
    "MediaStorageSOPClassUID": "sop_class",
    "SourceApplicationEntityTitle": "calling_ae_title",
    "SendingApplicationEntityTitle": "calling_ae_title",
    "ReceivingApplicationEntityTitle": "called_ae_title",
}


@dataclass(frozen=True, slots=True)
class PublicTag:
    """An element of the standard's dictionary (PS3.6)."""

    tag: int


@dataclass(frozen=True, slots=True)
class PrivateTag:
    """An element of a private block, wherever its creator reserved it (PS3.5 7.8.1)."""

    group: int
    element: int
    """The lower byte: 0x0C in (0019,xx0C)."""
    creator: str


def parse_key(key: str) -> PublicTag | PrivateTag | None:
    """What a key names; None for one of :data:`FACTS`.

    Raises
    ------
    ValueError
        It names nothing; the message is for the person who wrote it.
    """
    if key in FACTS:
        return None
    if "," in key:
        return _parse_private(key)
    tag = keyword_dict.get(key)
    if tag is None:
        raise ValueError(f"unknown DICOM keyword {key!r}{did_you_mean(key, _alike(key))}")
    if tag < 0x00080000:
        instead = _OWN_KEY.get(key)
        raise ValueError(
            f"{key!r} is no attribute of the dataset" + (f": use {instead}" if instead else "")
        )
    return PublicTag(tag)


def has_text(tag: PublicTag | PrivateTag) -> bool:
    """Whether values of the attribute can be compared; without, it can only be there or not."""
    if isinstance(tag, PrivateTag):
        return True
    return dictionary_VR(tag.tag)[:2] not in ("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN")


def _parse_private(key: str) -> PrivateTag:
    found = _PRIVATE.fullmatch(key.strip())
    if found is None:
        raise ValueError(f"{key!r} is no attribute: {_PRIVATE_HINT}, a public one by its keyword")
    group, element, creator = int(found[1], 16), int(found[2], 16), found[3].strip()
    if group % 2 == 0 or group < 9 or not creator:
        raise ValueError(f"{key!r} is no private attribute: its group is odd, from 0009 on")
    return PrivateTag(group, element, creator)


def _alike(key: str) -> list[str]:
    """The few keywords worth comparing: all five thousand would take 50 ms a fault."""
    first = key[:1].lower()
    return [
        *FACTS,
        *(
            name
            for name in keyword_dict
            if name[:1].lower() == first and abs(len(name) - len(key)) < 6
        ),
    ]

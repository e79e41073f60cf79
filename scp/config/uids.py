"""UIDs of the configuration: written as such, or by their names (PS3.6 annex A)."""

import re
from typing import Any, Final

from pydicom._uid_dict import UID_dictionary

from scp.config.words import did_you_mean, shown

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_KIND: Final = {
    "SOP class": ("SOP Class", "Meta SOP Class"),
    "transfer syntax": ("Transfer Syntax",),
}


def parse_sop_class(value: Any) -> Any:
    """The UID of ``EncapsulatedPDFStorage``, ``Encapsulated PDF Storage`` or a UID as it is."""
    return _parse(value, "SOP class")


def parse_transfer_syntax(value: Any) -> Any:
    """The UID of ``HTJ2KLosslessRPCL`` or a UID as it is."""
    return _parse(value, "transfer syntax")


def _parse(value: Any, what: str) -> Any:
    text = str(value).strip()
    if _UID.fullmatch(text) and len(text) <= 64:
        return text
    named = {
        name: uid
        for uid, entry in UID_dictionary.items()
        if entry[1] in _KIND[what]
        for name in (entry[0], entry[4])
        if name
    }
    if text not in named:
        raise ValueError(f"{shown(value)} is no {what}{did_you_mean(text, named)}")
    return named[text]

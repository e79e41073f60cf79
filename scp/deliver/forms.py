"""The files that may be delivered for an instance, where a peer does not take every one of them."""

import contextlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scp.config.accepts import is_accepted
from scp.deliver.ports import DecodeForPeer, Receipt, Verdict
from scp.errors import ConversionError, StorageFullError, WorkerLostError
from scp.model import DeliveryItem

_LOSSY: Final = re.compile(
    r"1\.2\.840\.10008\.1\.2\.4\."
    r"(5[0-6]|59|6[0-4]|81|91|93|10[0-6](\.1)?|107|108|111|112|203)"
)
"""Syntaxes whose pixels may differ from what was acquired (PS3.5 annex A)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A file that a peer may take."""

    item: DeliveryItem
    path: Path
    transfer_syntax: str
    sha256: str = ""
    """Empty: not known."""
    dataset_sha256: str = ""
    """Of what follows the file meta group; what is looked at where the whole file's is not known."""
    is_copy: bool = False
    """Made for this peer, and deleted once it was sent."""

    def drop(self) -> None:
        """Delete the copy, if it is one."""
        if self.is_copy:
            with contextlib.suppress(OSError):  # The answer counts, not the copy.
                self.path.unlink()


def stored_forms(item: DeliveryItem, accepts: Collection[str] | None = None) -> list[Form]:
    """Those that are there and that the configuration accepts, the wanted one first."""
    forms = [
        Form(item=item, path=item.path, transfer_syntax=item.transfer_syntax, sha256=item.sha256)
    ]
    if item.original_transfer_syntax != item.transfer_syntax:
        original = Form(
            item=item,
            path=item.original,
            transfer_syntax=item.original_transfer_syntax,
            dataset_sha256=item.original_dataset_sha256,
        )
        forms.append(original)
    original_syntax = item.original_transfer_syntax
    return [f for f in forms if is_accepted(f.transfer_syntax, original_syntax, accepts)]


def native_form(
    item: DeliveryItem, transfer_syntax: str, decode: DecodeForPeer, *, decode_lossy: bool
) -> Form | Receipt:
    """A decoded copy, or the receipt of an instance of which there is none."""
    if _LOSSY.fullmatch(item.original_transfer_syntax) and not decode_lossy:
        return _receipt(
            item, Verdict.REFUSED, f"lossy_syntax_refused: {item.original_transfer_syntax}"
        )
    try:
        path = decode(item, transfer_syntax)
    except WorkerLostError as error:
        return _receipt(item, Verdict.TRANSIENT, f"decode_failed: {error}")
    except ConversionError as error:
        return _receipt(item, Verdict.HELD, f"decode_failed: {error}")
    except StorageFullError as error:
        return _receipt(item, Verdict.TRANSIENT, f"no room to decode: {error}")
    except OSError as error:
        return _receipt(item, Verdict.TRANSIENT, f"decode_failed: {error.strerror}")
    return Form(item=item, path=path, transfer_syntax=transfer_syntax, is_copy=True)


def _receipt(item: DeliveryItem, verdict: Verdict, detail: str) -> Receipt:
    return Receipt(instance=item.instance, verdict=verdict, status="", detail=detail)

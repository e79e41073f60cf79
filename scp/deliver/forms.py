"""The files that may be delivered for an instance, where a peer does not take every one of them."""

import contextlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scp.config.accepts import NATIVE, is_accepted
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


class Forms:
    """What one peer may get: what is stored of an instance, else a native copy made for it.

    Parameters
    ----------
    accepts
        What the configuration says of the destination; None: everything.
    native
        The syntaxes that copies are made in, the more wanted first.
    """

    def __init__(
        self,
        decode: DecodeForPeer,
        *,
        accepts: Collection[str] | None,
        decode_lossy: bool,
        native: Sequence[str] = NATIVE,
    ) -> None:
        self._decode = decode
        self._accepts = accepts
        self._decode_lossy = decode_lossy
        self._native = native

    def syntaxes(self, item: DeliveryItem) -> list[str]:
        """The transfer syntaxes that it may go in, the most wanted first."""
        return syntaxes_of(item, self._native, self._accepts)

    def make(self, item: DeliveryItem, transfer_syntax: str) -> Form | Receipt:
        """It in one of these, or the receipt of an instance of which there is none; to be dropped."""
        if transfer_syntax == item.transfer_syntax:
            return Form(
                item=item, path=item.path, transfer_syntax=transfer_syntax, sha256=item.sha256
            )
        if transfer_syntax == item.original_transfer_syntax:
            return Form(
                item=item,
                path=item.original,
                transfer_syntax=transfer_syntax,
                dataset_sha256=item.original_dataset_sha256,
            )
        if _LOSSY.fullmatch(item.original_transfer_syntax) and not self._decode_lossy:
            return _receipt(
                item, Verdict.REFUSED, f"lossy_syntax_refused: {item.original_transfer_syntax}"
            )
        try:
            path = self._decode(item, transfer_syntax)
        except WorkerLostError as error:
            return _receipt(item, Verdict.TRANSIENT, f"decode_failed: {error}")
        except ConversionError as error:
            return _receipt(item, Verdict.HELD, f"decode_failed: {error}")
        except StorageFullError as error:
            return _receipt(item, Verdict.TRANSIENT, f"no room to decode: {error}")
        except OSError as error:
            return _receipt(item, Verdict.TRANSIENT, f"decode_failed: {error.strerror}")
        return Form(item=item, path=path, transfer_syntax=transfer_syntax, is_copy=True)

    def not_accepted(self, item: DeliveryItem) -> Receipt:
        """Of an instance that :meth:`syntaxes` has none for."""
        detail = "not_accepted: `accepts` names none of its transfer syntaxes"
        return _receipt(item, Verdict.REFUSED, detail)


def syntaxes_of(
    item: DeliveryItem, native: Iterable[str], accepts: Collection[str] | None = None
) -> list[str]:
    """As :meth:`Forms.syntaxes`."""
    original = item.original_transfer_syntax
    wanted = dict.fromkeys((item.transfer_syntax, original, *native))
    return [syntax for syntax in wanted if is_accepted(syntax, original, accepts)]


def _receipt(item: DeliveryItem, verdict: Verdict, detail: str) -> Receipt:
    return Receipt(instance=item.instance, verdict=verdict, status="", detail=detail)

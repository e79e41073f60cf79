"""How collapsing says no: with a reason that is counted."""

from dataclasses import dataclass

from scp.errors import ConversionError
from scp.model import CollapseReason


@dataclass(frozen=True, slots=True, kw_only=True)
class NotCollapsed:
    """One instance that stays single-frame."""

    name: str
    """The instance's key in its job."""
    reason: CollapseReason
    detail: str
    """For a person; never patient data."""


class NotCollapsedError(ConversionError):
    """The instances concerned stay single-frame; ``reason`` is counted, ``detail`` is for a person."""

    def __init__(self, reason: CollapseReason, detail: str) -> None:
        # Both as arguments, so that the error survives the pipe between two processes.
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"

"""How the conversion says no: with a reason that is counted."""

from scp.errors import ConversionError
from scp.model import PassReason


class NotConvertibleError(ConversionError):
    """The original is delivered instead; ``reason`` is counted, ``detail`` is for a person."""

    def __init__(self, reason: PassReason, detail: str) -> None:
        # Both as arguments, so that the error survives the pipe between two processes.
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"

"""Threads that share one GPU: while one makes a batch ready or takes its results, the device has another's.

Two do 400 CT in 260 and 280 ms where one takes 290 and 301 (16 workers on 16 cores beside an H100), and
send less of it to the CPU.
"""

from collections.abc import Sequence
from typing import Final

from scp.convert.gpu_port import EncodeSettings, Frame
from scp.convert.gpu_thread import GpuStatus, GpuThread
from scp.elements import Buffer

MEMBERS: Final = 2


class GpuTeam:
    """A :class:`scp.convert.gpu_port.SharedGpu` of several; each work goes to who has the least to do.

    A member that fails is left alone for a while, as it would be by itself; the others go on.
    """

    def __init__(self, members: Sequence[GpuThread]) -> None:
        self.members = tuple(members)
        self.name = self.members[0].name

    @property
    def status(self) -> GpuStatus:
        """Sums; in use while any member is, and of no more use in this process when one is not."""
        each = [member.status for member in self.members]
        is_in_use = any(one.is_in_use for one in each)
        return GpuStatus(
            name=self.name,
            is_in_use=is_in_use,
            wants_new_process=any(one.wants_new_process for one in each),
            frames=sum(one.frames for one in each),
            refused=sum(one.refused for one in each),
            batches=sum(one.batches for one in each),
            failures=sum(one.failures for one in each),
            hangs=sum(one.hangs for one in each),
            sent_away=sum(one.sent_away for one in each),
            last_error=next((one.last_error for one in each if one.last_error), ""),
            retry_seconds=0.0 if is_in_use else min(one.retry_seconds for one in each),
        )

    def encode(self, frames: Sequence[Frame], settings: EncodeSettings) -> list[bytes | None]:
        """See :class:`scp.convert.gpu_thread.GpuThread`."""
        return self._idlest().encode(frames, settings)

    def encode_in_place(
        self, frames: Sequence[Frame], settings: EncodeSettings
    ) -> list[int | bytes | None]:
        """See :class:`scp.convert.gpu_thread.GpuThread`."""
        return self._idlest().encode_in_place(frames, settings)

    def decode(self, codestreams: Sequence[Buffer]) -> list[Frame | None]:
        """See :class:`scp.convert.gpu_thread.GpuThread`."""
        return self._idlest().decode(codestreams)

    def differing(
        self, codestreams: Sequence[Buffer], frames: Sequence[Frame]
    ) -> list[bool | None]:
        """See :class:`scp.convert.gpu_thread.GpuThread`."""
        return self._idlest().differing(codestreams, frames)

    def distrust(self, why: str) -> None:
        """Nobody knows which of them it was."""
        for member in self.members:
            member.distrust(why)

    def close(self) -> None:
        """See :class:`scp.convert.gpu_thread.GpuThread`."""
        for member in self.members:
            member.close()

    def _idlest(self) -> GpuThread:
        return min(self.members, key=lambda member: member.load)

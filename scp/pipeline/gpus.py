"""The processes that have a GPU, one each: started, watched, and after a death tried again later.

Nobody waits for them: a worker that finds none, or loses the one it has, lets the CPU do the work.
"""

import logging
import os
import socket
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any, Final

from scp.convert.gpu_port import GpuError
from scp.convert.gpu_versions import gpu_library, installed_versions
from scp.pipeline import processes
from scp.pipeline.processes import Orders
from scp.pipeline.tasks import GpuReport

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 30.0
"""After a death; twice as long after each further one."""
LONGEST_RETRY_SECONDS: Final = 900.0
_SILENCE_SECONDS: Final = 15.0
"""A process that is ready says something every second."""
_START_SECONDS: Final = 120.0
"""To import its libraries and open the device."""
_COUNTED: Final = ("frames", "refused", "batches", "failures", "hangs", "sent_away")


@dataclass(slots=True)
class _Gpu:
    number: int
    process: subprocess.Popen[bytes] | None = None
    connection: Connection | None = None
    heard: float = 0.0
    report: GpuReport = field(default_factory=GpuReport)
    deaths: int = 0
    deaths_in_a_row: int = 0
    again: float = 0.0
    """When it is started again; meaningless while there is a process."""
    last_error: str = ""
    before: Counter[str] = field(default_factory=Counter)
    """What processes did that are gone."""


class GpuProcesses:
    """All GPUs of the machine, where the configuration wants one. For the coordinator's thread alone."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._gpus: list[_Gpu] = []
        self.why_not = ""
        """Why there is no GPU; empty while one is looked for, or where none is wanted."""
        if orders.gpus is None or orders.config.codec.backend == "cpu":
            return
        try:
            gpu_library(installed_versions())
        except GpuError as error:
            self._give_up(str(error))
            return
        orders.gpus.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The first finds out how many there are: the driver is not loaded here.
        self._gpus.append(_Gpu(0))
        self._start(self._gpus[0], time.monotonic())

    @property
    def ready(self) -> int:
        """Processes that workers may ask."""
        return sum(gpu.report.is_ready for gpu in self._gpus)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is starting for the first time."""
        return all(gpu.report.is_ready or gpu.deaths for gpu in self._gpus)

    def connections(self) -> list[Connection]:
        """What to wait on; call :meth:`readable` with those that are ready."""
        return [gpu.connection for gpu in self._gpus if gpu.connection is not None]

    def readable(self, connection: Connection) -> None:
        """A process said something, or died."""
        gpu = next(gpu for gpu in self._gpus if gpu.connection is connection)
        now = time.monotonic()
        try:
            report: GpuReport = processes.receive(connection)
        except (EOFError, OSError):
            self._lost(gpu, now, "died")
            return
        gpu.heard = now
        if report.why_not:
            self._end(gpu)
            self._gpus.remove(gpu)
            if not self._gpus:
                self._give_up(report.why_not)
            return
        if report.is_ready and not gpu.report.is_ready:
            logger.info("GPU %d (%s) is in use", gpu.number, report.device)
        if report.status and report.status.frames:
            gpu.deaths_in_a_row = 0
        gpu.report = report
        if report.status:
            gpu.last_error = report.status.last_error or gpu.last_error
        for number in range(len(self._gpus), report.devices):
            self._gpus.append(_Gpu(number))
            self._start(self._gpus[-1], now)

    def tick(self, now: float) -> None:
        """Kill what has been silent for too long; start again what died."""
        for gpu in self._gpus:
            longest = _SILENCE_SECONDS if gpu.report.is_ready else _START_SECONDS
            if gpu.process is None:
                if now >= gpu.again:
                    self._start(gpu, now)
            elif now >= gpu.heard + longest:
                if gpu.connection is not None and gpu.connection.poll():
                    gpu.heard = now  # It was us who had no time.
                else:
                    self._lost(gpu, now, f"said nothing for {longest:.0f} s")

    def stop(self) -> None:
        for gpu in self._gpus:
            self._end(gpu)
        self._gpus.clear()

    def describe(self) -> list[dict[str, Any]]:
        """For ``status``: what each GPU did, and how it is."""
        now = time.monotonic()
        return [_described(gpu, now) for gpu in self._gpus]

    def _give_up(self, why: str) -> None:
        self.why_not = why
        if self._orders.config.codec.backend == "gpu":
            logger.error("the CPU converts, without a GPU: %s", why)

    def _start(self, gpu: _Gpu, now: float) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            orders = replace(
                self._orders,
                name=f"gpu-{gpu.number}",
                parent=os.getpid(),
                sockets=(theirs.fileno(),),
            )
            try:
                gpu.process = processes.start("scp.pipeline.gpu", orders)
            except OSError as error:
                gpu.last_error = str(error)
                gpu.again = now + RETRY_SECONDS
                return
            gpu.connection, gpu.heard = Connection(ours.detach()), now

    def _lost(self, gpu: _Gpu, now: float, why: str) -> None:
        code = self._end(gpu)
        gpu.deaths += 1
        gpu.deaths_in_a_row += 1
        doubled = min(gpu.deaths_in_a_row - 1, 10)
        pause = min(RETRY_SECONDS * 2.0**doubled, LONGEST_RETRY_SECONDS)
        gpu.again = now + pause
        known = gpu.report.status.last_error if gpu.report.status else ""
        gpu.last_error = known or f"its process {why} ({processes.describe_exit(code)})"
        for name in _COUNTED:
            gpu.before[name] += getattr(gpu.report.status, name, 0)
        gpu.report = replace(gpu.report, is_ready=False, status=None)
        logger.warning(
            "GPU %d: its process %s (%s), tried again in %.0f s: %s",
            gpu.number,
            why,
            processes.describe_exit(code),
            pause,
            gpu.last_error,
        )

    def _end(self, gpu: _Gpu) -> int | None:
        assert self._orders.gpus is not None
        process, gpu.process = gpu.process, None
        if gpu.connection is not None:
            gpu.connection.close()
            gpu.connection = None
        (self._orders.gpus / str(gpu.number)).unlink(missing_ok=True)
        if process is None:
            return None
        processes.kill([process], seconds=10)
        return process.returncode


def _described(gpu: _Gpu, now: float) -> dict[str, Any]:
    status = gpu.report.status
    state, retry = "starting", 0.0
    if gpu.process is None:
        state, retry = "out of use", max(0.0, gpu.again - now)
    elif gpu.report.is_ready and status is not None:
        state = "in use" if status.is_in_use else "out of use"
        retry = status.retry_seconds
    return {
        "number": gpu.number,
        "device": gpu.report.device,
        "library": status.name if status else "",
        "state": state,
        **{name: gpu.before[name] + getattr(status, name, 0) for name in _COUNTED},
        "deaths": gpu.deaths,
        "last_error": gpu.last_error,
        "retry_seconds": round(retry, 1),
    }

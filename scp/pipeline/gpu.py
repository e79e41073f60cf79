"""The process that has a GPU: it does the work of every worker, and says how it fares.

It ends by itself where the device hangs or fails again and again: after most CUDA errors only a new process
helps, and the coordinator starts one after a while.
"""

import functools
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final

from scp import telemetry
from scp.convert.gpu_backend import find_gpus, pinning, prove_a_frame, shared_gpu
from scp.convert.gpu_team import GpuTeam
from scp.errors import CodecError
from scp.pipeline.gpu_link import GpuServer
from scp.pipeline.processes import Orders, read_orders, run_promptly, send
from scp.pipeline.tasks import GpuReport

_REPORT_SECONDS: Final = 1.0


def main() -> None:
    orders = read_orders()
    telemetry.configure(orders.log_format, orders.log_level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    coordinator = Connection(socket.socket(fileno=orders.sockets[0]).detach())
    # Workers keep every core busy, and what they ask for passes through several threads here: without it a
    # batch takes twice as long as it needs (CT, 16 workers on 16 cores beside an H100).
    run_promptly()
    try:
        is_well = run(orders, functools.partial(send, coordinator), coordinator.poll)
    except (EOFError, OSError):
        is_well = True  # The coordinator is gone.
    # What hangs in the driver would keep the interpreter from ending.
    os._exit(0 if is_well else 1)


def run(
    orders: Orders, report: Callable[[GpuReport], None], is_over: Callable[[float], bool]
) -> bool:
    """Serve until ``is_over``, which waits for so many seconds, says so; False: the device has failed.

    Parameters
    ----------
    orders
        Named ``gpu-N``, N being CUDA's number of the device.
    """
    assert orders.gpus is not None
    number = int(orders.name.rpartition("-")[2])
    found = find_gpus()
    if found.why_not or number >= len(found.devices):
        report(GpuReport(why_not=found.why_not or f"there is no GPU {number}"))
        return True

    def tell(gpu: GpuTeam, *, is_ready: bool) -> None:
        name, devices = found.devices[number], len(found.devices)
        report(GpuReport(device=name, devices=devices, is_ready=is_ready, status=gpu.status))

    gpu = shared_gpu(number, found.library, orders.config.codec)
    tell(gpu, is_ready=False)
    try:
        for member in gpu.members:
            prove_a_frame(member)
    except CodecError as error:
        if not gpu.status.failures:
            gpu.distrust(str(error))
        tell(gpu, is_ready=False)
        return False
    server = GpuServer(orders.gpus / str(number), gpu, pinning(number))
    tell(gpu, is_ready=True)
    while not is_over(_REPORT_SECONDS):
        tell(gpu, is_ready=True)
        if gpu.status.wants_new_process:
            server.close()
            return False
    server.close()
    gpu.close()
    return True


if __name__ == "__main__":
    main()

"""How the GPUs of a running node are shown."""

from collections.abc import Mapping
from typing import Any

from scp.cli import output


def show_gpus(status: Mapping[str, Any]) -> None:
    """A table of those that the node has; a line where the configuration wants one and there is none."""
    if status.get("gpus"):
        output.show_table(
            [
                "GPU",
                "",
                "state",
                ">frames",
                ">refused",
                ">failures",
                ">left to the CPU",
                "last error",
            ],
            [
                (
                    gpu["number"],
                    gpu["device"],
                    _state(gpu),
                    gpu["frames"],
                    gpu["refused"],
                    gpu["failures"] + gpu["deaths"],
                    gpu["sent_away"],
                    gpu["last_error"],
                )
                for gpu in status["gpus"]
            ],
        )
    elif status.get("backend") == "gpu" and status.get("no_gpu"):
        print(f"no GPU is used: {status['no_gpu']}")


def describe_gpu(gpu: Mapping[str, Any]) -> str:
    """One GPU in a line."""
    error = f"; last error: {gpu['last_error']}" if gpu["last_error"] else ""
    return f"{gpu['device']}: {_state(gpu)}, {gpu['frames']} frames{error}"


def _state(gpu: Mapping[str, Any]) -> str:
    if gpu["state"] == "out of use":
        return f"out of use, tried again in {gpu['retry_seconds']:.0f} s"
    return str(gpu["state"])

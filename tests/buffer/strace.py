"""What strace wrote about a program, as calls in order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TRACED = (
    "fsync,fdatasync,link,linkat,unlink,unlinkat,rename,renameat,renameat2,"
    "mkdir,mkdirat,sendto,sendmsg,write"
)
OPTIONS = ("-f", "-y", "-xx", "-s", "512", "--seccomp-bpf", "-e", f"trace={TRACED}")

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)")
_RESULT = re.compile(r"\) += (-?\d+)[^=]*$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^\d+<((?:\\x[0-9a-f]{2})*)>")


@dataclass(slots=True)
class Call:
    """One system call; ``began`` and ``ended`` are places in the one order of all events."""

    name: str
    arguments: str
    began: int
    ended: int = 0
    result: int = -1

    @property
    def texts(self) -> list[bytes]:
        return [_bytes(text) for text in _TEXT.findall(self.arguments)]

    @property
    def paths(self) -> list[Path]:
        """The paths that a call on names was given."""
        return [Path(text.decode()) for text in self.texts]

    @property
    def descriptor(self) -> str:
        """What the first argument was open on."""
        found = _DESCRIPTOR.match(self.arguments)
        return _bytes(found.group(1)).decode() if found else ""


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def read(trace: Path) -> list[Call]:
    """Every call that returned, in the order in which they began."""
    return sorted(_calls(trace), key=lambda call: call.began)


def _calls(trace: Path) -> Iterator[Call]:
    open_calls: dict[str, Call] = {}
    for number, line in enumerate(trace.read_text().splitlines()):
        matched = _LINE.match(line)
        if matched is None:
            continue  # A signal, or an exit.
        process, resumed, name, rest = matched.groups()
        if resumed:
            call = open_calls.pop(process)
            call.arguments += rest
        else:
            call = Call(name, rest, number)
            if rest.endswith("<unfinished ...>"):
                call.arguments = rest.removesuffix("<unfinished ...>")
                open_calls[process] = call
                continue
        result = _RESULT.search(call.arguments)
        if result is not None:
            call.ended, call.result = number, int(result.group(1))
            yield call

"""Receiving alone: DCMTK's storescp, which does not sync, the fsyncs beside it, Orthanc, and us."""

import itertools
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.benchmarks import peers, receive_load
from scripts.benchmarks.measure import cpu_seconds, empty, fsync_floor, process_of, settle

_WAIT: Mapping[str, Any] = {
    "rules": [{"name": "wait", "match": {"instances": {"ge": 1}}, "send_to": ["archive"]}],
    "series": {"quiet_seconds": 600},
}
"""A rule that cannot be decided while the series is open: nothing is converted meanwhile."""
_ORIGINAL: Mapping[str, Any] = {
    "default": {"convert": "original", "send_to": ["archive"]},
    "series": {"quiet_seconds": 600},
}
_DEFAULT: Mapping[str, Any] = {"series": {"quiet_seconds": 600}}

_TWO: Mapping[str, Any] = {"receivers": 2}

_SETUPS = 300
_SETUP_ROUNDS = 3
_MOST_SETUP_MS = 3.0
_SETUP_REQUESTS: Mapping[str, Sequence[str]] = {
    "one context": (),
    "128 contexts of 10 syntaxes": ("--propose-pc", "128", "--propose-ts", "10"),
}

_SLOW_SECONDS = 0.005
_SYNCS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
int fsync(int fd) {
    static int (*real)(int);
    struct timespec pause = {0, %d};
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (pause.tv_nsec) nanosleep(&pause, 0);
    return real(fd);
}
#ifdef FCLOSE_SYNCS
int fclose(FILE *file) {
    static int (*real)(FILE *);
    char name[32], path[4096];
    ssize_t length = -1;
    int folder, fd = fileno(file);
    if (!real) real = (int (*)(FILE *))dlsym(RTLD_NEXT, "fclose");
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY) {
        snprintf(name, sizeof name, "/proc/self/fd/%%d", fd);
        length = readlink(name, path, sizeof path - 1);
    }
    if (length > 0 && path[0] == '/') {
        fflush(file);
        fsync(fd);
        path[length] = 0;
        *strrchr(path, '/') = 0;
        folder = open(path, O_RDONLY);
        fsync(folder);
        close(folder);
    }
    return real(file);
}
#endif
"""
"""Has every fsync of a program take longer, or a C program sync each file and folder that it wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What is sent, and what it may cost."""

    text: str
    senders: Sequence[Sequence[Path]]
    """At once; each sends its folders or files one after the other, an association each."""
    most: float
    """Of our time over DCMTK's and the floor together."""
    rounds: int
    most_cpu: float | None = None
    """Of our CPU over DCMTK's."""
    storescp: tuple[str, ...] = ()
    is_slow: bool = False
    """Whether every fsync takes :data:`_SLOW_SECONDS` longer."""
    also: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Other configurations of ours that are measured, by what is said of them."""


@dataclass(slots=True)
class _Times:
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.median:.3f} s, CPU {statistics.median(self.cpu):.2f} s"

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def run(folder: Path) -> None:
    """Every row of the table, one after another."""
    for row in ROWS.values():
        row(folder)


def one(folder: Path) -> None:
    """400 CT over one association."""
    peers.ct_copies(folder / "one", 400)
    _compare(
        folder,
        _Work(
            text="400 CT, one association",
            senders=[[folder / "one"]],
            most=1.15,
            most_cpu=1.5,
            rounds=9,
            also={"convert: original": _ORIGINAL, "converting to HTJ2K meanwhile": _DEFAULT},
        ),
    )


def eight(folder: Path) -> None:
    """Eight series over eight associations."""
    senders = [[folder / f"eight-{number}"] for number in range(8)]
    for number, (place,) in enumerate(senders):
        peers.ct_copies(place, 400, seed=number)
    work = _Work(
        text="8 associations x 400 CT at once",
        senders=senders,
        most=1.2,
        rounds=2,
        storescp=("--fork",),
        also={"two receivers": {**_WAIT, "node": _TWO}},
    )
    _compare(folder, work)


def sixty(folder: Path) -> None:
    """An association for each instance, as many modalities do."""
    files = peers.ct_copies(folder / "sixty", 60)
    work = _Work(text="60 associations of one CT", senders=[files], most=1.2, rounds=3)
    _compare(folder, work)


def setup(folder: Path) -> None:
    """What an association costs that brings nothing but a C-ECHO."""
    print(f"an association and its C-ECHO, median of {_SETUP_ROUNDS} x {_SETUPS}:")
    for text, options in _SETUP_REQUESTS.items():
        theirs, ours = [], []
        for number in range(_SETUP_ROUNDS):
            place = folder / f"{len(options)}-{number}"
            place.mkdir()
            with peers.storescp(place / "dcmtk") as (port, process):
                theirs.append(_setup_milliseconds(port, process, options))
            with peers.node(place / "dcmpress", **_WAIT) as (port, root, _):
                receiver = process_of(root, "receiver")
                ours.append(_setup_milliseconds(port, receiver, options))
        dcmtk, own = statistics.median(theirs), statistics.median(ours)
        print(f"  {text}")
        print(f"    DCMTK storescp  CPU {dcmtk:.2f} ms")
        print(f"    dcmpress        CPU {own:.2f} ms (must be < {_MOST_SETUP_MS:g})")
        print(f"    ratio           {own / dcmtk:.1f}")


def _setup_milliseconds(port: int, process: int, options: Sequence[str]) -> float:
    """CPU of the process for one of many associations that follow each other."""
    before = cpu_seconds(process)
    for _ in range(_SETUPS):
        peers.echoscu(port, *options)
    return 1000 * (cpu_seconds(process) - before) / _SETUPS


def small(folder: Path) -> None:
    """10,000 instances of 50 kB."""
    peers.ct_copies(folder / "small", 10_000, rows=160, columns=160)
    work = _Work(
        text="10,000 instances of 50 kB, one association",
        senders=[[folder / "small"]],
        most=1.2,
        rounds=3,
    )
    _compare(folder, work)


def slow(folder: Path) -> None:
    """A disk whose every fsync takes 5 ms longer."""
    peers.ct_copies(folder / "slow", 400)
    work = _Work(
        text=f"400 CT, {_SLOW_SECONDS * 1000:.0f} ms injected into every fsync",
        senders=[[folder / "slow"]],
        most=1.1,
        rounds=3,
        is_slow=True,
    )
    _compare(folder, work)


ROWS: Mapping[str, Callable[[Path], None]] = {
    "one": one,
    "eight": eight,
    "sixty": sixty,
    "setup": setup,
    "small": small,
    "slow": slow,
    "busy": receive_load.busy,
    "large": receive_load.large,
}


def _compare(folder: Path, work: _Work) -> None:
    """Alternate, and compare the medians."""
    files = [
        file for place in _places(work) for file in (place.iterdir() if place.is_dir() else [place])
    ]
    total = sum(file.stat().st_size for file in files)
    environment = _preload(folder, "slow", work) if work.is_slow else {}
    syncing = _preload(folder, "syncing", work, "-DFCLOSE_SYNCS")
    floors: list[float] = []
    sink, theirs, synced, orthanc, ours = _Times(), _Times(), _Times(), _Times(), _Times()
    also = {text: _Times() for text in work.also}
    numbers = itertools.count()

    def measure(
        times: _Times, peer: Callable[[Path], AbstractContextManager[tuple[int, ...]]]
    ) -> None:
        place = folder / f"receiver-{next(numbers)}"
        with peer(place) as (port, process, *_):
            settle(2 * total)
            before = cpu_seconds(process)
            times.seconds.append(peers.storescus(port, work.senders))
            times.cpu.append(cpu_seconds(process) - before)
        empty(place)

    def node(sections: Mapping[str, Any]) -> Callable[[Path], Any]:
        return lambda place: peers.node(place, environment=environment, **sections)

    for number in range(work.rounds):
        place = folder / f"floor-{number}"
        floors.append(fsync_floor(place, files, _SLOW_SECONDS if work.is_slow else 0))
        empty(place)
        measure(theirs, lambda place: peers.storescp(place, *work.storescp))
        measure(
            synced,
            lambda place: peers.storescp(place, *work.storescp, environment=syncing),
        )
        measure(ours, node(_WAIT))
        if number == 0:
            measure(sink, lambda place: peers.storescp(place, "--ignore", *work.storescp))
            if not work.is_slow:
                measure(orthanc, peers.orthanc)
            for text, sections in work.also.items():
                measure(also[text], node(sections))
    floor = statistics.median(floors)
    print(f"{work.text}, median of {work.rounds}:")
    print(f"  DCMTK storescp  {theirs} (it does not sync)")
    if orthanc.seconds:
        print(f"  Orthanc         {orthanc}")
    print(f"  fsync floor     {floor:.3f} s, of {len(files)} files and their folder")
    print(f"  dcmpress        {ours}")
    print(
        f"  DCMTK storescp made to sync as we do: {synced}; ours is "
        f"{ours.median / synced.median:.2f} times that"
    )
    for text, times in also.items():
        print(f"    {text}: {times}, ratio {times.median / (theirs.median + floor):.2f}")
    ratio = ours.median / (theirs.median + floor)
    print(f"  ratio           {ratio:.2f} (must be <= {work.most})")
    if work.most_cpu is not None:
        cpu = statistics.median(ours.cpu) / statistics.median(theirs.cpu)
        print(f"  ratio of CPU    {cpu:.2f} (must be <= {work.most_cpu})")
    associations = len(_places(work))
    if associations == len(files):
        each = 1000 * statistics.median(ours.cpu) / associations
        print(f"  CPU for an association and its instance: {each:.1f} ms")
    print(
        f"  limit: the senders into a receiver that drops everything {sink.median:.3f} s, and the floor: "
        f"we take {ours.median / (sink.median + floor):.2f} times that"
    )


def _places(work: _Work) -> list[Path]:
    return [place for places in work.senders for place in places]


def _preload(folder: Path, name: str, work: _Work, *options: str) -> dict[str, str]:
    """An environment in which :data:`_SYNCS` holds for a program and its children."""
    source, library = folder / f"{name}.c", folder / f"{name}.so"
    source.write_text(_SYNCS % int(_SLOW_SECONDS * 1e9 * work.is_slow))
    subprocess.run(  # noqa: S603 - the system's compiler
        [peers.program("cc"), "-shared", "-fPIC", "-O2", *options, "-o", library, source, "-ldl"],
        check=True,
    )
    return {"LD_PRELOAD": str(library)}

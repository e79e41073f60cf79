"""What is held, for a person."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from scp.buffer.jobs import JobFolders
from scp.errors import NodeError
from scp.pipeline.live import Live

UNREADABLE: Final = "job_unreadable"


def held_jobs(
    name: str | None, jobs: Mapping[str, Live], unreadable: Mapping[str, int], folders: JobFolders
) -> list[dict[str, Any]]:
    """The jobs that need a person, or the one named, which has its conflicts said too.

    ``unreadable`` are those without a commit.

    Raises
    ------
    NodeError
        The job named is not held.
    """
    if name is not None and name not in jobs.keys() | unreadable.keys():
        raise NodeError(f"no job {name} is held")
    lost: list[dict[str, Any]] = [
        {
            "job": job,
            "instances": count,
            "created": "",
            "reasons": {"": {UNREADABLE: count}},
            "folder": str(folders.held_folder(job)),
        }
        for job, count in sorted(unreadable.items())
        if name in (None, job)
    ]
    return lost + [
        {
            "job": job,
            "instances": live.instances_held,
            "created": datetime.fromtimestamp(live.job.created, UTC).isoformat(),
            "reasons": {d: dict(Counter(held.values())) for d, held in live.held.items()},
            "folder": str(live.folder),
            **({} if name is None else {"conflicts": _conflicts(live)}),
        }
        for job, live in sorted(jobs.items())
        if name in (None, job)
    ]


def _conflicts(live: Live) -> list[dict[str, Any]]:
    """How the datasets that share a UID with another one differ from it, where that is known."""
    return [
        {"instance": instance.name, **asdict(instance.difference)}
        for instance in live.job.instances
        if instance.difference is not None
    ]

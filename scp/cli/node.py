"""Commands that run a node or speak to one."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from scp import telemetry
from scp.buffer.layout import Layout
from scp.cli import output
from scp.cli.configuration import load_config
from scp.cli.gpus import show_gpus
from scp.errors import NodeError, UsageError
from scp.pipeline.control import ask

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def serve_node(path: Path | None, log_format: str, log_level: str) -> None:
    """Run a node until SIGTERM or Ctrl-C."""
    from scp.pipeline.supervisor import serve

    if log_format not in ("console", "json"):
        raise UsageError(f"--log-format {log_format}: say console or json")
    if log_level.upper() not in _LEVELS:
        raise UsageError(f"--log-level {log_level}: say one of {', '.join(_LEVELS)}")
    config = load_config(path)
    known_format = cast(telemetry.LogFormat, log_format)
    telemetry.configure(known_format, log_level)
    serve(config, log_format=known_format, log_level=log_level)


def show_status(path: Path | None, *, as_json: bool, must_run: bool) -> None:
    """Show the counters.

    Raises
    ------
    NodeError
        ``must_run``, and no node answers.
    """
    status = _ask(path, {"command": "status"}, must_run=must_run)
    if as_json:
        output.show_json(status)
        return
    counted = ("received", "pending", "delivered", "held", "skipped", "discarded")
    running = "running" if status["running"] else "not running; read from its folders"
    output.show_table(
        [f">{name}" for name in (*counted, "converted", "passed_through")],
        [[status[name] for name in (*counted, "converted", "passed_through")]],
        title=f"{status['ae_title']} ({running}), {status['data']}",
    )
    if status.get("verify") == "off":
        print("verify is off: conversions are not proved")
    if status.get("conflicts"):
        print(f"{status['conflicts']} conflicts since the start: other datasets under known UIDs")
    if status["originals"]["instances"]:
        print(_originals_in_words(status["originals"]))
    show_gpus(status)
    ledger = status.get("ledger", {})
    if ledger.get("problem"):
        print(
            f"{ledger['problem']}; {ledger['jobs_waiting']} finished jobs wait for it in the spool"
        )
    if not ledger.get("is_known", True):
        print("the counters are those of the spool: what the ledger has is not known")
    if status["reasons"]:
        output.show_table(["passed through because", ">instances"], status["reasons"].items())
    if status["not_collapsed"]:
        output.show_table(["not collapsed because", ">instances"], status["not_collapsed"].items())
    if status["destinations"]:
        output.show_table(
            ["destination", ">pending", "state"],
            [
                (name, d["pending"], d["state"])
                for name, d in sorted(status["destinations"].items())
            ],
        )
    commitments = status.get("commitments", {})
    if any(commitments.values()):
        output.show_table(
            ["storage commitment", ">number"],
            [(name.replace("_", " "), number) for name, number in commitments.items()],
        )
    if status["series"]:
        output.show_table(
            ["open series", ">instances", ">MB", ">open s", ">quiet s"],
            [
                (
                    s["series"],
                    s["instances"],
                    f"{s['bytes'] / 1e6:.1f}",
                    s["open_seconds"],
                    s["quiet_seconds"],
                )
                for s in status["series"]
            ],
        )


def _originals_in_words(kept: dict[str, Any]) -> str:
    parts = [f"{kept['instances']} originals are kept, {output.megabytes(kept['bytes'])}"]
    for name, words in (("oldest", "the oldest of"), ("next_deletion", "the next is deleted at")):
        if kept[name] is not None:
            moment = datetime.fromtimestamp(kept[name], UTC).isoformat(timespec="seconds")
            parts.append(f"{words} {moment}")
    if kept["kept_for_good"]:
        parts.append(f"{kept['kept_for_good']} for good")
    return ", ".join(parts)


def show_held(job: str | None, path: Path | None, *, as_json: bool) -> None:
    jobs: list[dict[str, Any]] = _ask(path, {"command": "held", "job": job})["jobs"]
    if as_json:
        output.show_json(jobs)
        return
    if not jobs:
        print("nothing is held")
        return
    output.show_table(
        ["job", ">instances", "destination", "reason", ">instances"],
        [
            (entry["job"], entry["instances"], destination, reason, count)
            for entry in jobs
            for destination, reasons in entry["reasons"].items()
            for reason, count in reasons.items()
        ],
        footer="dcmpress retry JOB delivers again; dcmpress discard JOB --reason TEXT gives up",
    )
    for entry in jobs:
        for conflict in entry.get("conflicts", []):
            _show_conflict(conflict)


def _show_conflict(conflict: dict[str, Any]) -> None:
    at_least = "" if conflict["is_whole"] else "at least "
    print(
        f"{conflict['instance']} has the UID of another dataset: {at_least}{conflict['elements']} "
        f"elements differ, pixel data {conflict['pixel_data']}"
    )
    for line in conflict["listed"]:
        print(f"  {line}")
    if len(conflict["listed"]) < conflict["elements"]:
        print("  and more")


def retry_jobs(jobs: list[str], path: Path | None) -> None:
    """Have held and waiting jobs tried now, or released for the next start of the node.

    Raises
    ------
    NodeError
        One of them cannot be read, or there is no such job.
    """
    answer = _ask(path, {"command": "retry", "jobs": jobs})
    unreadable = [
        entry for entry in _held(path) if entry["job"] in answer["jobs"] and _is_unreadable(entry)
    ]
    readable = len(answer["jobs"]) - len(unreadable)
    released = answer.get("released")
    if released is None:
        print(f"{readable} jobs are tried again")
    else:
        print(f"{len(released)} jobs are released, and delivered when the node starts")
        if waiting := readable - len(released):
            print(f"{waiting} jobs wait for the node to start, as before")
    if unreadable:
        raise NodeError("\ndcmpress: ".join(map(_what_to_mend, unreadable)))


def discard_job(job: str, reason: str, path: Path | None) -> None:
    """Give a held job up.

    Raises
    ------
    NodeError
        It is not held, cannot be read, or another destination still has it to deliver.
    """
    for entry in _held(path):
        if entry["job"] == job and _is_unreadable(entry):
            raise NodeError(_what_to_mend(entry))
        if entry["job"] == job and _is_in_work(entry):
            raise NodeError(
                f"job {job} cannot be discarded yet: {', '.join(entry['reasons'])} holds its share, "
                "and another destination still has its own to deliver; wait until that has ended"
            )
    answer = _ask(path, {"command": "discard", "job": job, "reason": reason})
    print(f"{job}: {answer['instances']} instances discarded")


def _held(path: Path | None) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = _ask(path, {"command": "held", "job": None})["jobs"]
    return jobs


def _is_unreadable(entry: dict[str, Any]) -> bool:
    """It is held for no destination's sake."""
    return "" in entry["reasons"]


def _is_in_work(entry: dict[str, Any]) -> bool:
    """Some destinations hold their share of it, others still work."""
    return Path(entry["folder"]).parent.name == Layout(Path()).jobs.name


def _what_to_mend(entry: dict[str, Any]) -> str:
    folder = entry["folder"]
    return (
        f"job {entry['job']} is still held, because {folder}/job.json cannot be read: mend that and "
        "say dcmpress retry, or take the folder away while the node is down"
    )


def _ask(path: Path | None, request: dict[str, Any], *, must_run: bool = False) -> dict[str, Any]:
    """Ask the running node, or do it on its folders, under the lock, when it is down.

    With ``must_run`` the folders stay untouched, because a node that starts needs that lock.
    """
    from scp.pipeline.client import ask_node

    config = load_config(path)
    if must_run:
        found = ask(Layout(config.node.data).control, request)
        if found is None:
            raise NodeError(f"no node answers on {config.node.data}")
        answer = found
    else:
        answer = ask_node(config, request)
    for warning in answer.pop("warnings", []):
        print(warning, file=sys.stderr)
    return answer

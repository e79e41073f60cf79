"""dcmpress send: files to a DICOM node or any other destination, as fast as it takes them."""

import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scp.cli import output
from scp.cli.configuration import load_config
from scp.cli.paths import check_named, leave_out
from scp.config.network import RequestorTls
from scp.config.schema import Destination, DicomDestination
from scp.convert.decode import decode_for_peer
from scp.deliver.ports import Receipt
from scp.deliver.send import deliver_files
from scp.durable import Disk
from scp.errors import DeliveryError, NodeError, UsageError
from scp.model import DeliveryItem
from scp.pipeline.destinations import build_destination

_PEER = re.compile(r"(?P<title>[^@]*)@(?P<host>\[[^\]]+\]|[^@:]+):(?P<port>[0-9]{1,9})")


def tls_options(
    *,
    is_wanted: bool,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    check_host: bool,
) -> RequestorTls | None:
    """How a node is called that is no destination of the configuration; None: plain.

    Raises
    ------
    UsageError
        They do not fit together.
    """
    given = {"ca": ca, "certificate": certificate, "key": key}
    files = {name: path for name, path in given.items() if path is not None}
    if not (is_wanted or files or not check_host):
        return None
    try:
        return RequestorTls.model_validate({**files, "check_host": check_host})
    except ValidationError as error:
        fault = error.errors()[0]
        option = f"--{fault['loc'][0]}" if fault["loc"] else "--key"
        raise UsageError(f"{option}: {fault['msg'].removeprefix('Value error, ')}") from error


def send_paths(
    paths: list[Path],
    to: str,
    calling: str | None,
    config: Path | None,
    tls: RequestorTls | None = None,
    *,
    as_json: bool,
) -> None:
    """Send, and say what the peer did not take; also where it went away in the middle.

    Raises
    ------
    NodeError
        The peer did not take everything.
    DeliveryError
        It could not be reached, or not any more.
    """
    for path in paths:
        check_named(path)
    counts: dict[str, int] = {}
    refused: list[Receipt] = []
    failure: DeliveryError | None = None
    try:
        for receipt in sent(paths, to, calling, config, tls):
            counts[receipt.verdict] = counts.get(receipt.verdict, 0) + 1
            if not receipt.verdict.is_done:
                refused.append(receipt)
    except DeliveryError as error:
        failure = error
    _show(counts, refused, as_json=as_json)
    if failure is not None:
        raise failure
    if refused:
        raise NodeError(f"{len(refused)} files were not taken")


def _show(counts: dict[str, int], refused: list[Receipt], *, as_json: bool) -> None:
    if as_json:
        output.show_json(
            {
                "counts": counts,
                "refused": [
                    {"path": r.instance, "status": r.status, "detail": r.detail} for r in refused
                ],
            }
        )
    else:
        for receipt in refused:
            print(f"{receipt.instance}: {receipt.status} {receipt.detail}".replace(":  ", ": "))
        summary = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        print(summary or "nothing was sent")


def sent(
    paths: list[Path],
    to: str,
    calling: str | None,
    config: Path | None = None,
    tls: RequestorTls | None = None,
) -> Iterator[Receipt]:
    """Send to ``AET@HOST:PORT`` or to a configured destination, and yield a receipt for each file.

    Parameters
    ----------
    calling
        Our AE title, where a node is called; None: the destination's, or the default.
    tls
        For ``AET@HOST:PORT``; a destination has its own.
    """
    section = _section(to, calling, config, tls)
    with tempfile.TemporaryDirectory(prefix="dcmpress-send-") as folder:
        copy = Path(folder) / "copy.dcm"

        def decode(item: DeliveryItem, transfer_syntax: str, decode_lossy: bool) -> Path:
            copy.unlink(missing_ok=True)
            decode_for_peer(item.path, copy, transfer_syntax, decode_lossy=decode_lossy)
            return copy

        destination = build_destination(to, section, Disk(), decode)
        yield from deliver_files(_without_pipes(paths), destination)


def _without_pipes(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file, hidden ones too, and what cannot be opened, whose receipt is to say so."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        closed: list[OSError] = []
        for folder, folders, names in path.walk(on_error=closed.append):
            folders.sort()
            for found in (folder / name for name in sorted(names)):
                # A link to a folder is named among the files, and not followed.
                if not found.is_dir() and not leave_out(found):
                    yield found
        yield from (Path(error.filename) for error in closed)


def _section(
    to: str, calling: str | None, config: Path | None, tls: RequestorTls | None
) -> Destination:
    ours = {} if calling is None else {"calling_ae_title": calling}
    found = _PEER.fullmatch(to)
    if found:
        host, port = found["host"].strip("[]"), int(found["port"])
        peer = {"host": host, "port": port, "ae_title": found["title"], "tls": tls}
        return _checked(to, peer | ours)
    if "@" in to:
        raise UsageError(f"--to {to}: write it like PACS@10.0.0.9:104, an IPv6 address in []")
    destinations = load_config(config).destinations
    section = destinations.get(to)
    if section is None:
        known = ", ".join(destinations)
        raise UsageError(
            f"--to {to}: neither AET@HOST:PORT nor a destination of the configuration ({known})"
        )
    if tls is not None:
        raise UsageError(
            f"--tls: {to} is a destination, and its configuration says how it is called"
        )
    if not isinstance(section, DicomDestination):
        if calling is not None:
            raise UsageError(f"--from: {to} is no DICOM node, and asks for no AE title")
        return section
    return _checked(to, section.model_dump() | ours) if ours else section


def _checked(to: str, values: dict[str, Any]) -> DicomDestination:
    try:
        return DicomDestination.model_validate({"kind": "dicom", **values})
    except ValidationError as error:
        fault = error.errors()[0]
        key = fault["loc"][0]
        option = "--from" if key == "calling_ae_title" else f"--to {to}"
        why = fault["msg"].removeprefix("Value error, ")
        if key == "port":
            why = f"{values['port']} is no port: give one from 1 to 65535"
        raise UsageError(f"{option}: {why}") from error

"""Values of the configuration: sizes, titles, addresses, paths."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from scp.config.accepts import check_accepts_something, parse_accepted
from scp.config.conditions import Condition, parse_match
from scp.config.templates import check_template
from scp.config.uids import parse_sop_class

_SIZE = re.compile(r"(\d{1,18})\s*([KMGT]?)(i?)B?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd])", re.ASCII)
_SECONDS_OF: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_HOST_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_DESTINATION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def parse_size(value: Any) -> Any:
    """Bytes from ``1GiB``, ``500 MB``, ``4096``."""
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if not found:
            raise ValueError(f"{value!r} is no size: write it like 500MB, 1GiB or 4096")
        number, prefix, binary = found.groups()
        return int(number) * (1024 if binary else 1000) ** " KMGT".index(prefix.upper() or " ")
    return value


def parse_duration(value: Any) -> Any:
    """Seconds from ``90s``, ``15m``, ``24h`` or ``30d``; a bare number could mean any of them."""
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        raise ValueError(f"{value!r} is no duration: write it like 90s, 15m, 24h or 30d")
    number, unit = found.groups()
    return float(number) * _SECONDS_OF[unit]


def parse_period(value: Any) -> Any:
    """As :func:`parse_duration`; of nothing the unit does not matter."""
    return 0.0 if str(value).strip() == "0" else parse_duration(value)


def check_ae_title(value: str) -> str:
    """PS3.5 6.2: 1 to 16 printable characters, no backslash, spaces around do not count."""
    title = value.strip()
    if not 1 <= len(title) <= 16 or "\\" in title or not title.isascii() or not title.isprintable():
        raise ValueError(f"{value!r} is no AE title: 1 to 16 printable ASCII characters without \\")
    return title


def check_network(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        raise ValueError(f"{value!r} is no IP address or network like 10.0.0.0/24") from error
    return value


def check_bind(value: str) -> str:
    """An IPv4 or IPv6 address, or a host name (RFC 1123 2.1), which never ends in a number."""
    try:
        ipaddress.ip_address(value)
    except ValueError as error:
        labels = value.split(".")
        is_name = len(value) <= 253 and all(map(_HOST_LABEL.fullmatch, labels))
        if not is_name or labels[-1].isdecimal():
            raise ValueError(f"{value!r} is no IP address or host name") from error
    return value


def check_host(value: str) -> str:
    """As :func:`check_bind`, of who is called: a name may end in the dot of its root."""
    try:
        check_bind(value.removesuffix("."))
    except ValueError as error:
        hint = ": the port has a key of its own" if re.fullmatch(r"[^:]+:[0-9]+", value) else ""
        raise ValueError(f"{value!r} is no IP address or host name{hint}") from error
    return value


def check_folder(value: Path) -> Path:
    text = str(value)
    if text.startswith("~"):
        raise ValueError("~ is not expanded here: write the whole path")
    if "\0" in text:
        raise ValueError("a path has no NUL characters")
    return value


def check_destination_name(value: str) -> str:
    """It becomes part of file names in the spool."""
    if not _DESTINATION_NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no destination name: 1 to 64 letters, digits, - and _")
    return value


def parse_whole(value: Any) -> Any:
    """Literals of numbers are compared as they are, so text has to become a number first."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value


CodeBlockSide = Annotated[Literal[32, 64], BeforeValidator(parse_whole)]
Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
PduSize = Annotated[int, BeforeValidator(parse_size), Field(ge=4096, le=2**20)]
Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
"""In seconds."""
Period = Annotated[float, BeforeValidator(parse_period), Field(ge=0, le=100 * 365 * 86400.0)]
"""In seconds; none at all is one, too."""
Port = Annotated[int, Field(ge=0, le=65535)]
AeTitle = Annotated[str, AfterValidator(check_ae_title)]
Network = Annotated[str, AfterValidator(check_network)]
BindAddress = Annotated[str, AfterValidator(check_bind)]
Host = Annotated[str, AfterValidator(check_host)]
Folder = Annotated[Path, AfterValidator(check_folder)]
"""Relative ones start at the current directory of whoever runs the command."""
DestinationName = Annotated[str, AfterValidator(check_destination_name)]
Accepted = Annotated[str, BeforeValidator(parse_accepted)]
"""A UID, or a word that stands for several."""
Accepts = Annotated[tuple[Accepted, ...], AfterValidator(check_accepts_something)]
SopClass = Annotated[str, BeforeValidator(parse_sop_class)]
"""A UID."""
Template = Annotated[str, AfterValidator(check_template)]
Matches = Annotated[dict[str, Condition], BeforeValidator(parse_match)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

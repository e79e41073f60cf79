"""The shape of the configuration: frozen, unknown keys refused, a section for each stage."""

import ipaddress
import re
import string
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydicom.datadict import tag_for_keyword

from scp.config.conditions import Condition, parse_match
from scp.model import Deliver, Form

DEFAULT_RULE: Final = "default"
"""What decides where no rule matches; no rule may be called so."""

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd])", re.ASCII)
_SECONDS_OF: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"(\d{1,18})\s*([KMGT]?)(i?)B?", re.IGNORECASE | re.ASCII)
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


def check_template(value: str) -> str:
    """A relative path below the destination's folder, with DICOM keywords in braces."""
    try:
        parts = list(string.Formatter().parse(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is no template: {error}") from error
    for _, keyword, specification, conversion in parts:
        if keyword is None:
            continue
        if specification or conversion or tag_for_keyword(keyword) is None:
            raise ValueError(f"{{{keyword}}} is no DICOM keyword")
    folders = value.split("/")
    if not all(folders) or ".." in folders or "." in folders or "\0" in value:
        raise ValueError(f"{value!r} is no template: a relative path without empty parts, . and ..")
    return value


def parse_whole(value: Any) -> Any:
    """Literals of numbers are compared as they are, so text has to become a number first."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value


CodeBlockSide = Annotated[Literal[32, 64], BeforeValidator(parse_whole)]
Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
"""In seconds."""
Port = Annotated[int, Field(ge=0, le=65535)]
AeTitle = Annotated[str, AfterValidator(check_ae_title)]
Network = Annotated[str, AfterValidator(check_network)]
BindAddress = Annotated[str, AfterValidator(check_bind)]
Folder = Annotated[Path, AfterValidator(check_folder)]
"""Relative ones start at the current directory of whoever runs the command."""
DestinationName = Annotated[str, AfterValidator(check_destination_name)]
Template = Annotated[str, AfterValidator(check_template)]
Matches = Annotated[dict[str, Condition], BeforeValidator(parse_match)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NodeSection(Section):
    ae_title: AeTitle = "DCMPRESS"
    bind: BindAddress = "0.0.0.0"  # noqa: S104 - a node that modalities reach is the purpose
    port: Port = 11112
    """0 takes a free one, printed at the start."""
    data: Folder = Path("./data")


class ReportTo(Section):
    """Where a peer listens for the reports of storage commitment that it asks for."""

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]


class Peer(Section):
    ae_title: AeTitle | None = None
    """None: any."""
    address: Network | None = None
    """An address or a network in CIDR form. None: any."""
    report_to: ReportTo | None = None
    """None: storage commitment that it asks for is refused."""

    @model_validator(mode="after")
    def _names_something(self) -> "Peer":
        if self.ae_title is None and self.address is None:
            raise ValueError("a peer needs an ae_title, an address or both")
        if self.ae_title is None and self.report_to is not None:
            raise ValueError("a peer with report_to needs an ae_title: reports are addressed to it")
        return self


class AccessSection(Section):
    anyone: bool = True
    peers: tuple[Peer, ...] = ()

    @model_validator(mode="after")
    def _lets_somebody_in(self) -> "AccessSection":
        if not self.anyone and not self.peers:
            raise ValueError("nobody could send: name some peers, or say anyone: true")
        return self


class SeriesSection(Section):
    quiet_seconds: PositiveFloat = 15.0
    """A series is complete when nothing arrived for so long."""
    max_open_seconds: PositiveFloat = 900.0
    """It is cut when it has been open for so long."""
    resend_window_seconds: Annotated[float, Field(ge=0)] = 600.0
    """The same dataset again within this time after its delivery is not delivered again."""


class LimitsSection(Section):
    reserve: Size = 2 * 2**30
    """Nothing is accepted when the spool's disk would have less left after the work at hand."""
    max_open_instances: PositiveInt = 200_000
    """In series that still grow; the oldest is closed early."""
    max_open_bytes: Size = 200 * 2**30
    max_pdu_bytes: Annotated[int, BeforeValidator(parse_size), Field(ge=4096, le=2**20)] = 2**17
    """Announced to peers; a longer PDU ends the association."""
    max_instance_bytes: Size = 16 * 2**30
    max_associations: PositiveInt = 200
    idle_seconds: PositiveFloat = 60.0
    """Without a byte between messages an association is aborted."""
    pdu_seconds: PositiveFloat = 30.0
    """For one PDU, from its first byte to its last."""
    max_encoded_bytes: Size = 4 * 2**30
    """The cache of instances converted while their series is open."""
    drain_seconds: PositiveFloat = 20.0
    """After SIGTERM, until open associations are aborted."""


class CodecSection(Section):
    backend: Literal["auto", "gpu", "cpu"] = "auto"
    verify: Literal["independent", "off"] = "independent"
    """``off`` forbids ``enhanced``, and the status shows it."""
    workers: Annotated[int, Field(gt=0, le=1024)] | None = None
    """Processes that convert; None: one a core."""
    deadline_seconds: PositiveFloat = 120.0
    """For converting one instance, plus one second for each 4 MB of it."""
    max_instance_bytes: Size = 2 * 2**30
    """A larger instance, native size counted, is delivered as it came."""


class Htj2kSection(Section):
    """The parameters of NVIDIA's transcode_datasets_to_htj2k."""

    decompositions: Annotated[int, Field(ge=0, le=32)] = 5
    """At least; more where 1.2.840.10008.1.2.4.202 demands it (PS3.5 10.18.1)."""
    code_block: tuple[CodeBlockSide, CodeBlockSide] = (64, 64)
    """Rows and columns."""
    progression: Literal["RPCL", "LRCP", "RLCP", "PCRL", "CPRL"] = "RPCL"


class EnhancedSection(Section):
    max_frames: PositiveInt = 2000
    max_bytes: Size = 2**30
    restore_record: Literal["embedded", "sidecar", "none"] = "embedded"


class CommitSection(Section):
    """Storage commitment that peers ask for (PS3.4 annex J)."""

    when: Literal["delivered", "never"] = "delivered"
    """``never``: the SOP class is not offered."""
    to: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Destinations that must have an instance. None: all that its rule names."""
    timeout: Duration = 24 * 3600.0
    """What is not there by then is reported as failed."""
    unknown_after: Duration = 600.0
    """An instance that nobody has sent by then is reported as unknown."""


class FolderDestination(Section):
    kind: Literal["folder"]
    path: Folder
    template: Template = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
    """Names in braces are DICOM keywords; each value is made safe for one path component."""


class CommitmentSection(Section):
    """Storage commitment that we ask a destination for; what is not said is as in the destination."""

    ae_title: AeTitle | None = None
    host: Annotated[str, Field(min_length=1)] | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    timeout: Duration = 24 * 3600.0
    """What is not committed by then is held."""


def parse_commitment(value: Any) -> Any:
    """``true`` is a section without keys, ``false`` none."""
    match str(value).lower():
        case "true":
            return {}
        case "false":
            return None
    return value


class DicomDestination(Section):
    kind: Literal["dicom"]
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    ae_title: AeTitle
    calling_ae_title: AeTitle = "DCMPRESS"
    decode_lossy: bool = False
    """Decode a lossy original that the peer refuses, instead of holding it."""
    connect_seconds: PositiveFloat = 15.0
    answer_seconds: PositiveFloat = 120.0
    """For each answer, the one to the association request included."""
    commitment: Annotated[CommitmentSection | None, BeforeValidator(parse_commitment)] = None
    """None: the status of a C-STORE is all that is asked for."""


Destination = Annotated[FolderDestination | DicomDestination, Field(discriminator="kind")]


class Outcome(Section):
    """What a rule, or the default, asks for."""

    convert: Form = Form.HTJ2K
    deliver: Deliver = Deliver.WHEN_QUIET
    """``at_once`` has no effect with ``enhanced``: a series collapses when it is complete."""
    send_to: tuple[str, ...]
    """Names of destinations. Empty: skipped by policy, and counted."""


class Rule(Outcome):
    name: Annotated[str, Field(min_length=1)]
    match: Matches = Field(default_factory=dict)
    """All must hold; none: everything matches."""
    quiet_seconds: PositiveFloat | None = None


class Config(Section):
    """The whole configuration, as loaded."""

    node: NodeSection = NodeSection()
    access: AccessSection = AccessSection()
    series: SeriesSection = SeriesSection()
    limits: LimitsSection = LimitsSection()
    codec: CodecSection = CodecSection()
    htj2k: Htj2kSection = Htj2kSection()
    enhanced: EnhancedSection = EnhancedSection()
    commit: CommitSection = CommitSection()
    destinations: dict[DestinationName, Destination]
    rules: tuple[Rule, ...] = ()
    default: Outcome

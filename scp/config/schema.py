"""The shape of the configuration: frozen, unknown keys refused, a section for each stage."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from scp.config.ledger import LedgerSection
from scp.config.network import CertificateName, ListenerSection, RequestorTls, User
from scp.config.remote import (
    AzureDestination,
    DestinationSection,
    DicomwebDestination,
    GcsDestination,
    NoticesSection,
    S3Destination,
)
from scp.config.values import (
    Accepts,
    AeTitle,
    BindAddress,
    CodeBlockSide,
    DestinationName,
    Duration,
    Folder,
    Host,
    Matches,
    Network,
    PduSize,
    Period,
    Port,
    Section,
    Size,
    Template,
    parse_whole,
)
from scp.config.words import shown
from scp.model import Conflict, Deliver, Form, Priority

SENDER: Final = "sender"
"""In the place of a calling AE title."""
MAX_RECEIVERS: Final = 64
DEFAULT_RULE: Final = "default"
"""What decides where no rule matches; no rule may be called so."""


def parse_receivers(value: Any) -> Any:
    """One sentence, where each kind of value would be complained of by itself."""
    if value == "auto":
        return value
    number = parse_whole(value)
    if not isinstance(number, int) or not 1 <= number <= MAX_RECEIVERS:
        raise ValueError(f"must be auto or a number from 1 to {MAX_RECEIVERS}, not {shown(value)}")
    return number


class NodeSection(Section):
    ae_title: AeTitle = "DCMPRESS"
    bind: BindAddress = "0.0.0.0"  # noqa: S104 - a node that modalities reach is the purpose
    port: Port = 11112
    """0 takes a free one, printed at the start."""
    data: Folder = Path("./data")
    receivers: Annotated[int | Literal["auto"], BeforeValidator(parse_receivers)] = "auto"
    """Processes that receive. ``auto``: one for every eight cores, at least one, at most four."""


class ReportTo(Section):
    """Where a peer listens for the reports of storage commitment that it asks for, and how."""

    host: Host
    port: Annotated[int, Field(ge=1, le=65535)]
    tls: RequestorTls | None = None
    """None: plain."""


class Peer(Section):
    """Some who may send, and what is special about them; the first entry that fits counts."""

    ae_title: AeTitle | None = None
    """None: any."""
    address: Network | None = None
    """An address or a network in CIDR form. None: any."""
    certificate_name: CertificateName | None = None
    """The common name or a DNS name of its verified certificate. None: any, or no certificate."""
    called_ae_titles: tuple[AeTitle, ...] = ()
    """What it may call; none: whatever the listener answers to."""
    max_associations: PositiveInt | None = None
    """At a time, of all that this entry stands for."""
    max_pdu_bytes: PduSize | None = None
    """This one and those that follow: instead of those in ``limits``."""
    max_instance_bytes: Size | None = None
    idle_seconds: PositiveFloat | None = None
    report_to: ReportTo | None = None
    """None: storage commitment that it asks for is refused."""

    @model_validator(mode="after")
    def _names_something(self) -> "Peer":
        if self.ae_title is None and self.address is None and self.certificate_name is None:
            raise ValueError("a peer needs an ae_title, an address or both, or a certificate_name")
        if self.ae_title is None and self.report_to is not None:
            raise ValueError("a peer with report_to needs an ae_title: reports are addressed to it")
        return self


class AccessSection(Section):
    anyone: bool = True
    """False: only ``peers``."""
    peers: tuple[Peer, ...] = ()
    user_identity: Literal["ignore", "refuse", "optional", "required"] = "ignore"
    """Of associations that bring one. ``optional`` and ``required``: it must be one of ``users``."""
    users: tuple[User, ...] = ()

    @model_validator(mode="after")
    def _lets_somebody_in(self) -> "AccessSection":
        if not self.anyone and not self.peers:
            raise ValueError("nobody could send: name some peers, or say anyone: true")
        if self.user_identity == "required" and not self.users:
            raise ValueError("nobody could send: name some users, or say user_identity: optional")
        if self.user_identity in ("ignore", "refuse") and self.users:
            raise ValueError("users have no use here: say user_identity: optional or required")
        return self


class SeriesSection(Section):
    quiet_seconds: PositiveFloat = 15.0
    """A series is complete when nothing arrived for so long."""
    max_open_seconds: PositiveFloat = 900.0
    """It is cut when it has been open for so long."""
    resend_window_seconds: Annotated[float, Field(ge=0)] = 600.0
    """The same dataset again within this time after its delivery is not delivered again."""
    conflict: Conflict = Conflict.DELIVER
    """Another dataset under the same UID within that time. ``deliver``: both are delivered in order of
    arrival; ``newest``: of those in one job only the last; ``hold``: what comes after the first is held."""


class LimitsSection(Section):
    reserve: Size = 2 * 2**30
    """Nothing is accepted when the spool's disk would have less left after the work at hand."""
    max_open_instances: PositiveInt = 200_000
    """In series that still grow; the oldest is closed early."""
    max_open_bytes: Size = 200 * 2**30
    max_pdu_bytes: PduSize = 2**17
    """Announced to peers; a longer PDU ends the association."""
    max_instance_bytes: Size = 16 * 2**30
    max_associations: Annotated[int, Field(ge=1, le=10_000)] = 250
    """At a time."""
    busy_seconds: Annotated[float, Field(ge=0)] = 5.0
    """While there are so many, others wait; after so long of it they are rejected for now."""
    max_associations_per_address: PositiveInt = 200
    """Less than all: no address leaves others without."""
    handshake_seconds: Annotated[float, Field(ge=0.01, le=86_400)] = 30.0
    """From the connection to the association, the TLS handshake included."""
    idle_seconds: Annotated[float, Field(ge=0.01, le=86_400)] = 60.0
    """Without a byte between messages an association is aborted."""
    pdu_seconds: Annotated[float, Field(ge=0.01, le=86_400)] = 30.0
    """For one PDU, from its first byte to its last."""
    max_encoded_bytes: Size = 4 * 2**30
    """The cache of instances converted while their series is open."""
    drain_seconds: Annotated[float, Field(ge=0.01, le=86_400)] = 20.0
    """After SIGTERM, until open associations are aborted."""


class CodecSection(Section):
    backend: Literal["auto", "gpu", "cpu"] = "auto"
    verify: Literal["independent", "off"] = "independent"
    """``off`` forbids ``enhanced``, and the status shows it."""
    workers: Annotated[int, Field(gt=0, le=1024)] | None = None
    """Processes that convert; None: one a core."""
    deadline_seconds: PositiveFloat = 120.0
    """For converting one instance, plus one second for each 4 MB of it, native size counted."""
    max_instance_bytes: Size = 16 * 2**30
    """A larger instance, native size counted, is delivered as it came. Memory does not grow with it."""


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


class DeleteOriginalsSection(Section):
    """When the files are deleted that were received."""

    after: Literal["delivered", "committed", "never"] = "delivered"
    """``delivered``: every destination is done with the instance; ``committed``: and one of them has
    vouched for it by storage commitment, without which it is kept for good."""
    plus: Period = 0.0
    """So much longer."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> "DeleteOriginalsSection":
        if self.after == "never" and "plus" in self.model_fields_set:
            raise ValueError("plus has no use here: after: never keeps them for good")
        return self


class FolderDestination(DestinationSection):
    kind: Literal["folder"]
    path: Folder
    template: Template = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
    """Names in braces are DICOM keywords; each value is made safe for one path component."""

    @property
    def place(self) -> str:
        """Where it is, for a person."""
        return str(self.path / self.template)


class CommitmentSection(Section):
    """Storage commitment that we ask a destination for; what is not said is as in the destination."""

    ae_title: AeTitle | None = None
    host: Host | None = None
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


class DicomDestination(DestinationSection):
    kind: Literal["dicom"]
    host: Host
    port: Annotated[int, Field(ge=1, le=65535)]
    ae_title: AeTitle
    calling_ae_title: AeTitle = "DCMPRESS"
    """``sender``, in small letters: that of whoever sent the instance to the node."""
    tls: RequestorTls | None = None
    """None: plain."""
    accepts: Accepts | None = None
    """Nothing else is proposed to the peer. None: whatever there is of an instance."""
    accepts_collapsed: bool = False
    max_associations: Annotated[int, Field(ge=1, le=64)] = 1
    """At a time."""
    max_pdu: PduSize = 2**18
    """Longer ones are not sent, whatever the peer takes."""
    decode_lossy: bool = False
    """Decode a lossy original that the peer refuses, instead of holding it."""
    connect_seconds: PositiveFloat = 15.0
    answer_seconds: PositiveFloat = 120.0
    """For each answer, the one to the association request included."""
    commitment: Annotated[CommitmentSection | None, BeforeValidator(parse_commitment)] = None
    """None: the status of a C-STORE is all that is asked for."""

    @property
    def place(self) -> str:
        """Where it is, for a person."""
        return f"{self.ae_title}@{self.host}:{self.port}"

    @property
    def calls_as_sender(self) -> bool:
        return self.calling_ae_title == SENDER


Destination = Annotated[
    FolderDestination
    | DicomDestination
    | DicomwebDestination
    | S3Destination
    | AzureDestination
    | GcsDestination,
    Field(discriminator="kind"),
]

KEEPS_SIDECARS: Final = ("folder", "s3", "azure", "gcs")
"""Kinds of destination that keep a file beside an object."""


class Outcome(Section):
    """What a rule, or the default, asks for."""

    convert: Form = Form.HTJ2K
    deliver: Deliver = Deliver.WHEN_QUIET
    """``at_once`` has no effect with ``enhanced``: a series collapses when it is complete."""
    priority: Priority | None = None
    """None: urgent where ``deliver`` is ``at_once``, else normal."""
    send_to: tuple[str, ...]
    """Names of destinations. Empty: skipped by policy, and counted."""
    delete_originals: DeleteOriginalsSection | None = None
    """None: as the whole configuration says."""


class Rule(Outcome):
    name: Annotated[str, Field(min_length=1)]
    match: Matches = Field(default_factory=dict)
    """All must hold; none: everything matches."""
    quiet_seconds: PositiveFloat | None = None


class Config(Section):
    """The whole configuration, as loaded."""

    node: NodeSection = NodeSection()
    listeners: tuple[ListenerSection, ...] = ()
    """Instead of the node's port; none: one plain listener there."""
    access: AccessSection = AccessSection()
    series: SeriesSection = SeriesSection()
    limits: LimitsSection = LimitsSection()
    codec: CodecSection = CodecSection()
    htj2k: Htj2kSection = Htj2kSection()
    enhanced: EnhancedSection = EnhancedSection()
    notices: NoticesSection = NoticesSection()
    commit: CommitSection = CommitSection()
    delete_originals: DeleteOriginalsSection = DeleteOriginalsSection()
    """Where neither the rule nor the default says otherwise."""
    ledger: LedgerSection = LedgerSection()
    destinations: dict[DestinationName, Destination]
    rules: tuple[Rule, ...] = ()
    default: Outcome

    @property
    def ports(self) -> tuple[ListenerSection, ...]:
        """Where the node listens, at least one."""
        return self.listeners or (ListenerSection(port=self.node.port, bind=self.node.bind),)

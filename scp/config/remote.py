"""Places on the web: DICOMweb servers, object stores, and a webhook for notices."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, model_validator

from scp.config.secrets import ClientTls, Secret
from scp.config.templates import TEMPORARY
from scp.config.values import Accepts, Folder, Section, Size, SopClass, Template, parse_size

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_PREFIX = re.compile(r"[A-Za-z0-9._=@+-]+(/[A-Za-z0-9._=@+-]+)*")


def check_url(value: str) -> str:
    """An absolute http or https URL without credentials, query and fragment."""
    try:
        parts = urlsplit(value)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # Of the port, which is looked at when it is asked for.
        is_usable = False
    if not is_usable or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f"{value!r} is no URL like https://pacs.example/dicom-web")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("a URL here has no user, ? or #: name credentials in their own keys")
    return value.rstrip("/")


def check_webhook(value: str) -> str:
    """An absolute http or https URL, which may have a query; faults do not show it, a key may be in it."""
    base, _, query = value.partition("?")
    try:
        check_url(base)
    except ValueError as error:
        raise ValueError("no URL like https://hooks.example/dcmpress") from error
    if not query.isascii() or not query.isprintable() or {" ", "#"} & set(query):
        raise ValueError("no URL like https://hooks.example/dcmpress?key=value")
    return value


Url = Annotated[str, AfterValidator(check_url)]
WebhookUrl = Annotated[str, AfterValidator(check_webhook)]


def check_bucket(value: str) -> str:
    if not _BUCKET.fullmatch(value):
        raise ValueError(f"{value!r} is no name of a bucket")
    return value


def check_prefix(value: str) -> str:
    parts = value.split("/")
    is_ours = any(part.startswith(TEMPORARY) for part in parts)
    if value and (not _PREFIX.fullmatch(value) or "." in parts or ".." in parts or is_ours):
        raise ValueError(f"{value!r} is no prefix like archive/ct, without / at its ends")
    return value


Bucket = Annotated[str, AfterValidator(check_bucket)]
Prefix = Annotated[str, AfterValidator(check_prefix)]


class DestinationSection(Section):
    """What every kind of destination has."""

    on_refused: Literal["hold", "skip"] = "hold"
    """What becomes of an instance that the destination will not take, whoever sends it."""
    skip_sop_classes: tuple[SopClass, ...] = ()
    """Not offered to it: skipped, and counted."""
    accepts_collapsed: bool = True
    """Of a series that a rule collapses it gets the volume; else its single frames."""


class DicomwebDestination(DestinationSection):
    """A server that takes instances by STOW-RS (PS3.18 section 10.5)."""

    kind: Literal["dicomweb"]
    accepts_collapsed: bool = False
    url: Url
    """Of the service: what stands before ``/studies``."""
    user: Annotated[str, Field(min_length=1)] | None = None
    """With ``password``: basic authentication."""
    password: Secret | None = None
    token: Secret | None = None
    """Bearer authentication."""
    tls: ClientTls = ClientTls()
    accepts: Accepts | None = None
    """Nothing else is sent to the server. None: whatever there is of an instance."""
    transfer_syntax_parameter: bool = False
    """Each part says its transfer syntax in its Content-Type, too (PS3.18 section 8.7.3), which some
    servers want, and others take for another type: Orthanc's plugin 1.7 answers 200 and stores nothing."""
    max_request_bytes: Size = 64 * 2**20
    """Instances are sent together up to this size; a larger one goes alone."""
    max_connections: Annotated[int, Field(ge=1, le=64)] = 1
    """At a time."""
    decode_lossy: bool = False
    """Decode a lossy original that the server refuses, instead of holding it."""
    connect_seconds: PositiveFloat = 15.0
    answer_seconds: PositiveFloat = 120.0

    @model_validator(mode="after")
    def _has_one_way_to_log_in(self) -> "DicomwebDestination":
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password belong together")
        if self.user is not None and ":" in self.user:
            raise ValueError("a user's name has no colon")
        if self.user is not None and self.token is not None:
            raise ValueError("either user and password, or a token")
        if self.url.startswith("http:") and self.tls != ClientTls():
            raise ValueError("tls needs a URL that begins with https:")
        return self

    @property
    def place(self) -> str:
        """Where it is, for a person."""
        return self.url


class ObjectStoreDestination(DestinationSection):
    """What every object store is told. Nothing in it is ever replaced."""

    prefix: Prefix = ""
    """Before every key."""
    template: Template = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
    """Of keys, as of a folder's files."""
    endpoint: Url | None = None
    """None: the provider's own."""
    ca: Folder | None = None
    """Certificates of the authorities that are trusted; None: those of the system."""
    max_put_bytes: Annotated[
        int, BeforeValidator(parse_size), Field(ge=5 * 2**20, le=5 * 2**30)
    ] = 32 * 2**20
    """A larger object goes in parts of this size; memory for a few of them is needed."""
    max_connections: Annotated[int, Field(ge=1, le=64)] = 4
    """At a time."""
    connect_seconds: PositiveFloat = 15.0
    answer_seconds: PositiveFloat = 120.0
    """For each request, its body included."""

    @property
    def keys(self) -> str:
        """The template of whole keys."""
        return f"{self.prefix}/{self.template}" if self.prefix else self.template


class S3Destination(ObjectStoreDestination):
    """Amazon S3, and what speaks its protocol with conditional writes (``If-None-Match``)."""

    kind: Literal["s3"]
    bucket: Bucket
    region: Annotated[str, Field(min_length=1)] = "us-east-1"
    access_key_id: Secret | None = None
    """With ``secret_access_key``. None: what the environment or the machine's role gives."""
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    path_style: bool = True
    """``https://endpoint/bucket/key``; false: ``https://bucket.endpoint/key``."""

    @model_validator(mode="after")
    def _has_a_whole_key(self) -> "S3Destination":
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key belong together")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token needs access_key_id and secret_access_key")
        return self

    @property
    def place(self) -> str:
        """Where it is, for a person."""
        return f"s3://{self.bucket}/{self.keys}"


class AzureDestination(ObjectStoreDestination):
    """Azure Blob Storage."""

    kind: Literal["azure"]
    account: Bucket
    container: Bucket
    access_key: Secret | None = None
    """None: what the environment or the machine's identity gives."""

    @property
    def place(self) -> str:
        """Where it is, for a person."""
        return f"azure://{self.account}/{self.container}/{self.keys}"


class GcsDestination(ObjectStoreDestination):
    """Google Cloud Storage."""

    kind: Literal["gcs"]
    bucket: Bucket
    service_account: Secret | None = None
    """Its key, in JSON. None: what the environment or the machine gives."""

    @property
    def place(self) -> str:
        """Where it is, for a person."""
        return f"gs://{self.bucket}/{self.keys}"


class NoticesSection(Section):
    """Whom to tell when a person is needed."""

    webhook: WebhookUrl | None = None
    """Each notice is posted there as JSON. None: notices are in the log only."""
    token: Secret | None = None
    """Sent as ``Authorization: Bearer ...``."""
    ca: Folder | None = None
    """Certificates of the authorities that are trusted; None: those of the system."""
    down_minutes: PositiveFloat = 10.0
    """A destination is told of when nothing could be delivered to it for so long."""
    low_space: Size | None = None
    """So little room on the spool's disk is told of. None: twice ``limits.reserve``."""
    repeat_hours: PositiveFloat = 24.0
    """What still holds is told of again after so long."""

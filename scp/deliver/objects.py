"""What an object store is asked, and what its answers mean; files as it takes them."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from scp.config.remote import (
    AzureDestination,
    GcsDestination,
    ObjectStoreDestination,
    S3Destination,
)
from scp.config.secrets import Secret
from scp.deliver.verdicts import http_error
from scp.errors import (
    DeliveryError,
    DigestMismatchError,
    PeerRejectedError,
    PeerUnavailableError,
)

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_CHUNK: Final = 1 << 20
_STATUS: Final = re.compile(r"status code: (\d{3})")
_SIGNS: Final = (
    ("certificate", "its certificate is not trusted"),
    ("timed out", "timeout"),
    ("timeout", "timeout"),
    ("refused", "connection refused"),
    ("dns", "its name is not known"),
)
"""What a connection's failure says, and what that means."""

type Section = S3Destination | AzureDestination | GcsDestination


def credentials_of(section: Section) -> dict[str, str]:
    """What the section's secrets say now; empty: what the environment or the machine gives.

    Raises
    ------
    DeliveryError
        One of them is not there.
    """
    secrets: dict[str, Secret | None] = {}
    match section:
        case S3Destination():
            secrets = {
                "access_key_id": section.access_key_id,
                "secret_access_key": section.secret_access_key,
                "session_token": section.session_token,
            }
        case AzureDestination():
            secrets = {"account_key": section.access_key}
        case GcsDestination():
            secrets = {"service_account_key": section.service_account}
    return {key: secret.read() for key, secret in secrets.items() if secret is not None}


def connect(section: Section, credentials: dict[str, str]) -> ObjectStore:
    options = _client_options(section)
    retries: RetryConfig = {"max_retries": 0}  # The queue tries again, and says so.
    endpoint = {} if section.endpoint is None else {"endpoint": section.endpoint}
    config: dict[str, Any] = {**credentials, **endpoint}
    match section:
        case S3Destination():
            return S3Store(
                section.bucket,
                region=section.region,
                virtual_hosted_style_request=not section.path_style,
                copy_if_not_exists="multipart",
                config=config,  # type: ignore[arg-type]
                client_options=options,
                retry_config=retries,
            )
        case AzureDestination():
            return AzureStore(
                section.container,
                account_name=section.account,
                config=config,  # type: ignore[arg-type]
                client_options=options,
                retry_config=retries,
            )
        case GcsDestination():
            if "endpoint" in config:
                config["base_url"] = config.pop("endpoint")
            return GCSStore(
                section.bucket,
                config=config,  # type: ignore[arg-type]
                client_options=options,
                retry_config=retries,
            )


def _client_options(section: ObjectStoreDestination) -> "ClientConfig":
    options: ClientConfig = {
        "allow_http": (section.endpoint or "").startswith("http:"),
        "connect_timeout": timedelta(seconds=section.connect_seconds),
        "timeout": timedelta(seconds=section.answer_seconds),
        "user_agent": "dcmpress",
    }
    if section.ca is not None:
        options["root_certificate"] = section.ca.read_bytes()
    return options


def create(store: ObjectStore, key: str, content: bytes | str) -> bool:
    """Whether the object is there now that was not before: content, or a copy of another."""
    with told():
        try:
            if isinstance(content, str):
                obstore.copy(store, content, key, overwrite=False)
            else:
                obstore.put(store, key, content, mode="create")
        except AlreadyExistsError:
            return False
    return True


def size_of(store: ObjectStore, key: str) -> int | None:
    """None: there is no such object."""
    with told():
        try:
            return int(obstore.head(store, key)["size"])
        except FileNotFoundError:
            return None


def same_bytes(store: ObjectStore, source: int, key: str) -> bool:
    """Whether an object has the content of a file."""
    if size_of(store, key) != os.fstat(source).st_size:
        return False
    offset = 0
    with told():
        for chunk in obstore.get(store, key).stream(min_chunk_size=_CHUNK):
            content = bytes(chunk)
            if _read(source, offset, len(content)) != content:
                return False
            offset += len(content)
    return True


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what the store says into what happens next; keys stay out of it, they may name patients.

    Raises
    ------
    PeerRejectedError, PeerUnavailableError
        As of :class:`scp.deliver.ports.Destination`.
    DeliveryError
        It speaks of the object.
    """
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PeerRejectedError("the store does not let us in, or not write") from error
    except FileNotFoundError as error:
        raise PeerRejectedError("the store has no such bucket") from error
    except NotSupportedError as error:
        raise PeerRejectedError("the store cannot create without replacing") from error
    except (BaseError, TimeoutError) as error:
        text = str(error)
        found = _STATUS.search(text)
        if found is None:
            why = next((why for sign, why in _SIGNS if sign in text.lower()), "no answer")
            raise PeerUnavailableError(f"the store cannot be reached: {why}") from error
        status = int(found[1])
        told = http_error(status, "the store") or DeliveryError(f"the store answers {status}")
        raise told from error


def whole(source: int, sha256: str) -> bytes:
    return b"".join(chunks(source, sha256))


def chunks(source: int, sha256: str) -> Iterator[bytes]:
    """A file, the last of it only when all of it is what was committed; empty ``sha256``: not known."""
    digest = hashlib.sha256()
    size = os.fstat(source).st_size
    offset = 0
    while offset < size:
        chunk = _read(source, offset, _CHUNK)
        if not chunk:
            raise DeliveryError("file_unreadable: it became shorter while it was sent")
        digest.update(chunk)
        offset += len(chunk)
        if offset >= size and sha256 and digest.hexdigest() != sha256:
            raise DigestMismatchError("the file is not the one that was committed")
        yield chunk


def digest_of(source: int) -> str:
    digest = hashlib.sha256()
    for chunk in chunks(source, ""):
        digest.update(chunk)
    return digest.hexdigest()


def _read(source: int, offset: int, size: int) -> bytes:
    try:
        return os.pread(source, size, offset)
    except OSError as error:
        raise unreadable(error) from error


def unreadable(error: OSError) -> DeliveryError:
    return DeliveryError(f"file_unreadable: {error.strerror}")

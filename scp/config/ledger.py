"""Where the ledger is kept, and for how long."""

from typing import Annotated, Any, Final
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from scp.config.secrets import ClientTls, Secret
from scp.config.values import Section, parse_duration

_SCHEMES: Final = ("postgresql", "postgresql+pg8000", "postgres")
_DAY: Final = 24 * 3600.0


def check_database_url(value: str) -> str:
    """``postgresql://user@host:port/database``; faults never show it, a password may be in it."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError("no URL like postgresql://dcmpress@db.example:5432/dcmpress") from error
    query = parse_qs(parts.query, keep_blank_values=True)
    folder = query.pop("host", [""])[0]
    if parts.scheme not in _SCHEMES or port == 0 or parts.fragment:
        raise ValueError("no URL like postgresql://dcmpress@db.example:5432/dcmpress")
    if query:
        raise ValueError(f"{', '.join(query)} is not known here: TLS and the password have keys")
    if not parts.path.removeprefix("/") or "/" in parts.path[1:]:
        raise ValueError("it names no database: postgresql://dcmpress@db.example/dcmpress")
    if bool(parts.hostname) == folder.startswith("/"):
        raise ValueError("it needs a host, or ?host=/run/postgresql for a socket there")
    return value


def parse_keep(value: Any) -> Any:
    """Seconds from ``400d``; None from ``forever``."""
    if value == "forever":
        return None
    seconds = parse_duration(value)
    if seconds < _DAY:
        raise ValueError(f"{value!r} is too short: at least 1d, or forever")
    return seconds


class LedgerSection(Section):
    url: Annotated[str, AfterValidator(check_database_url)] | None = Field(default=None, repr=False)
    """None: SQLite, in the data folder. Else a PostgreSQL database, which nodes may share."""
    password: Secret | None = None
    """Better than one in the URL."""
    tls: ClientTls | None = None
    """None: encrypted where the server wants it, and whoever it is."""
    keep: Annotated[float | None, BeforeValidator(parse_keep)] = 400 * _DAY
    """Seconds after which a row is deleted; None: never. The counters keep what was counted."""

    @model_validator(mode="after")
    def _has_a_server_for_the_password(self) -> "LedgerSection":
        if self.url is None and (self.password is not None or self.tls is not None):
            raise ValueError("password and tls are for a server: name it with url")
        if self.password is not None and self.url and urlsplit(self.url).password:
            raise ValueError("the password is in the url already: leave it there or here")
        return self

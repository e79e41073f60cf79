"""A PostgreSQL server for tests, started as a user that may: initdb refuses root."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from scp.config.ledger import LedgerSection
from tests.conftest import IN_CI

USER = "dcmpress"
PASSWORD = "not the one of a real server"  # noqa: S105 - it is not


class PostgresServer:
    """A server in a folder of its own, on a port of its own. Made anew for each test module."""

    def __init__(self) -> None:
        _program("initdb")  # Else nothing is to be left behind.
        self._folder = Path(tempfile.mkdtemp(prefix="dcmpress-postgres-"))
        self._data = self._folder / "data"
        self._as_user = _as_somebody_else(self._folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run("initdb", "--username", USER, "--pwfile", str(secret), "--auth", "scram-sha-256",
                  "--encoding", "UTF8", "--no-sync", "--pgdata", str(self._data))  # fmt: skip
        self._databases = 0

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder}"
        self._control("start", "--options", options, "--log", str(self._folder / "log"))

    def stop(self) -> None:
        """As a power failure would: nobody is told."""
        self._control("stop", "--mode", "immediate")

    def freeze(self, *, is_frozen: bool) -> None:
        """Stop all its processes, or have them go on."""
        signal = "STOP" if is_frozen else "CONT"
        main = (self._data / "postmaster.pid").read_text().split()[0]
        subprocess.run(["pkill", f"-{signal}", "-P", main], check=False)
        subprocess.run(["kill", f"-{signal}", main], check=True)

    def new_database(self) -> LedgerSection:
        """The section that names an empty one."""
        self._databases += 1
        name = f"ledger_{self._databases}"
        environment = os.environ | {"PGPASSWORD": PASSWORD}
        host = ["--host", "127.0.0.1", "--port", str(self.port), "--username", USER]
        subprocess.run([_program("createdb"), *host, name], check=True, env=environment)
        return self.section(name)

    def section(self, database: str, **changes: Any) -> LedgerSection:
        url = f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"
        secret = {"file": self._folder / "password"}
        return LedgerSection.model_validate({"url": url, "password": secret, **changes})

    @property
    def folder(self) -> Path:
        """Where its socket lies."""
        return self._folder

    def remove(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder)

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "--wait", "--silent", "--pgdata", str(self._data), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        # Not a pipe: the server would inherit it, and who reads it wait for its end.
        with open(self._folder / "output", "w+b") as output:
            done = subprocess.run(
                [*self._as_user, _program(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                cwd="/",
            )
            output.seek(0)
            assert not done.returncode, output.read().decode(errors="replace")


def _as_somebody_else(folder: Path) -> list[str]:
    """What to put before a command that root may not run; the folder becomes that user's."""
    if os.geteuid() != 0:
        return []
    name = next(
        name for name in ("postgres", "nobody") if name in {each.pw_name for each in pwd.getpwall()}
    )
    shutil.chown(folder, name)
    return ["runuser", "--user", name, "--"]


def _program(name: str) -> str:
    """Debian keeps the server's programs where no PATH looks, one folder a version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ["PATH"]]))
    if found is None:
        message = f"{name} of PostgreSQL is not installed: scripts/install-peers installs it"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    return found

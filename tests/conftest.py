"""What tests of every stage share: real images, real peers, free ports."""

import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI") == "true"

# The same examples on every run, and few enough that nobody waits; loaded machines are no failure.
settings.register_profile(
    "bounded",
    derandomize=True,
    deadline=None,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("bounded")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak-seconds",
        type=float,
        default=40.0,
        help="for how long the soak test torments its node",
    )


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real images: DCMPRESS_CORPUS, else beside the repository."""
    named = os.environ.get("DCMPRESS_CORPUS")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "corpus"
    if not folder.is_dir():
        pytest.skip("no corpus of real images here: set DCMPRESS_CORPUS to a folder of DICOM files")
    return folder


@pytest.fixture
def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def dcmtk() -> Callable[[str], str]:
    """Finds a peer program, DCMTK's or another of the system's: ``dcmtk("storescu")``."""
    return peer_program


def peer_program(name: str) -> str:
    """The path of a program of the system; without it the test skips, in CI it fails.

    The virtual environment is not searched: pynetdicom puts its own storescu there.
    """
    own = Path(sys.prefix) / "bin"
    folders = [
        folder
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
        if folder and Path(folder).resolve() != own.resolve()
    ]
    # Debian keeps daemons such as Orthanc where an ordinary user's PATH does not look.
    found = shutil.which(name, path=os.pathsep.join([*folders, "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        message = f"{name} is not installed: scripts/install-peers installs it"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="session")
def environment_program() -> Callable[[str], str]:
    """Finds a program that a development dependency brings: ``dciodvfy``, for one."""

    def find(name: str) -> str:
        path = Path(sys.prefix) / "bin" / name
        assert path.exists(), f"{name} is not in the virtual environment: run scripts/setup"
        return str(path)

    return find


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests found out that is worth more than a dot: the fault matrix."""
    for report in terminalreporter.stats.get("passed", ()):
        for name, value in report.user_properties:
            if name.startswith("fault matrix"):
                terminalreporter.section(name)
                terminalreporter.write_line(str(value))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what installs packages: at the end nothing would be left to do beside it."""
    items.sort(key=lambda item: "scripts" not in item.path.relative_to(REPOSITORY).parts)

"""scripts/install, which is also how the container image is built; and the lock files behind it."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import IN_CI, REPOSITORY


def _locked(name: str) -> dict[str, str]:
    text = (REPOSITORY / name).read_text()
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("lock", "extras", "groups"),
    [
        ("requirements.lock", [], ["build"]),
        ("requirements-gpu.lock", ["gpu"], ["build"]),
        ("requirements-dev.lock", [], ["build", "dev"]),
    ],
)
def test_a_lock_file_has_a_fitting_version_of_everything(
    lock: str, extras: list[str], groups: list[str]
) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted = list(project["project"]["dependencies"])
    for extra in extras:
        wanted += project["project"]["optional-dependencies"][extra]
    for group in groups:
        wanted += [item for item in project["dependency-groups"][group] if isinstance(item, str)]

    locked = _locked(lock)

    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)])


def test_the_lock_files_agree_on_what_they_share() -> None:
    runtime = _locked("requirements.lock")

    assert runtime.items() <= _locked("requirements-dev.lock").items()
    assert runtime.items() <= _locked("requirements-gpu.lock").items()


def test_every_locked_version_is_pinned_by_digest_and_no_place_is_named() -> None:
    for lock in REPOSITORY.glob("requirements*.lock"):
        entries = re.split(r"^(?=[\w.-]+==)", lock.read_text(), flags=re.MULTILINE)[1:]

        assert all("--hash=sha256:" in entry for entry in entries)
        assert not re.search(r"://|^-|file:", lock.read_text(), re.MULTILINE)


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.skipif(not IN_CI, reason="downloads every dependency: runs in CI, or with CI=true")
def test_it_installs_a_command_that_runs_without_the_repository(tmp_path: Path) -> None:
    prefix = tmp_path / "dcmpress"
    environment = {**os.environ, "PYTHON": sys.executable}

    installed = subprocess.run(
        [REPOSITORY / "scripts" / "install", prefix],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr

    command: list[str | Path] = [prefix / "bin" / "dcmpress", "--help"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "serve" in shown.stdout
    command = [prefix / "bin" / "python", "-c", "import scp; print(scp.__file__)"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(prefix))

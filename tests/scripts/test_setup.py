"""scripts/setup and scripts/run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.project import make_project

ENVIRONMENT = {**os.environ, "PATH": f"{sys.base_prefix}/bin:{os.environ['PATH']}"}
"""Whatever a python3 on the PATH is, this one is recent enough."""


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def test_two_at_once_install_once_and_later_calls_only_after_a_change(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    setup = project / "scripts" / "setup"

    both = [
        subprocess.Popen(
            [setup], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    output = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0], output
    assert output.count("installing") == 1

    unchanged = _run(setup, cwd=tmp_path)
    assert (unchanged.returncode, unchanged.stdout + unchanged.stderr) == (0, "")

    (project / "requirements-dev.lock").write_text("# another lock\n")
    changed = _run(setup, cwd=tmp_path)
    assert changed.returncode == 0
    assert "installing" in changed.stderr

    command = _run(project / "scripts" / "run", "send", "two words", cwd=tmp_path)
    assert command.stdout == f"{tmp_path} send two words\n"


def test_without_a_recent_python_it_says_so_in_one_sentence(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    old = tmp_path / "bin"
    old.mkdir()
    for name in ("python3", "python3.12", "python3.13", "python3.14"):
        (old / name).write_text("#!/bin/sh\nexit 1\n")
        (old / name).chmod(0o755)

    refused = subprocess.run(
        [project / "scripts" / "setup"],
        env={
            "PATH": f"{old}:{os.defpath}",
            "HOME": str(tmp_path),
            "PYENV_ROOT": str(tmp_path / "none"),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == 1
    assert "no Python 3.12 or newer" in refused.stderr
    assert not (project / ".venv").exists()


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_peers_that_may_not_be_installed_are_named_and_in_ci_an_error(
    tmp_path: Path, ci: str, code: int
) -> None:
    for name, body in (("dpkg-query", "exit 1"), ("id", "echo 1000"), ("sudo", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)

    refused = subprocess.run(
        [Path(__file__).parents[2] / "scripts" / "install-peers"],
        env={"PATH": f"{tmp_path}:{os.defpath}", "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == code
    assert "dcmtk libgdcm-tools" in refused.stderr
    assert "strace not installed: that needs root" in refused.stderr

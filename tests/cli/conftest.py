"""Commands run in this process, as a shell would see them."""

import sys
from collections.abc import Callable

import pytest

from scp.cli.main import main

type Dcmpress = Callable[..., str]


@pytest.fixture
def dcmpress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dcmpress:
    """``dcmpress("check", path, code=2)``: what it prints, once its exit code is the expected one.

    With exit code 0 the standard output, else that and the standard error.
    """

    def run(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["dcmpress", *map(str, arguments)])
        capsys.readouterr()
        found: object = 0
        try:
            main()
        except SystemExit as stop:
            found = stop.code
        out, err = capsys.readouterr()
        assert found == code, f"exit code {found}: {out}{err}"
        return out if code == 0 else out + err

    return run

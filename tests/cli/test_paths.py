"""Which files a command line means."""

import os
import socket
from pathlib import Path

import pytest

from scp.cli.paths import files_in
from scp.errors import UsageError
from tests.deliver.files import closed_folder


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_files_are_named_in_order_and_hidden_ones_left_out(tmp_path: Path) -> None:
    wanted = [touch(tmp_path / name) for name in ("a/b.dcm", "a/c/d", "e", "f")]
    for name in (".hidden", "a/.hidden.part", ".folder/g"):
        touch(tmp_path / name)
    (tmp_path / "f").unlink()
    (tmp_path / "f").symlink_to("e")
    (tmp_path / "link").symlink_to("a")

    assert list(files_in([tmp_path])) == wanted


def test_what_is_named_itself_may_be_hidden_and_comes_in_the_order_given(tmp_path: Path) -> None:
    hidden, plain = touch(tmp_path / ".hidden"), touch(tmp_path / "a")

    assert list(files_in([plain, hidden])) == [plain, hidden]


def test_what_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        list(files_in([tmp_path / "none"]))


def test_what_is_no_file_is_left_out_of_a_folder_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = touch(tmp_path / "a" / "file")
    os.mkfifo(tmp_path / "a" / "pipe")
    (tmp_path / "link").symlink_to("a/pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "to nothing").symlink_to("none")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))

        assert list(files_in([tmp_path])) == [file]

    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"{tmp_path / 'a' / 'pipe'} is left out: it is a FIFO",
        f"{tmp_path / 'link'} is left out: it is a FIFO",
        f"{tmp_path / 'null'} is left out: it is a device",
        f"{tmp_path / 'socket'} is left out: it is a socket",
    ]


def test_what_is_no_file_cannot_be_named(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(UsageError, match=f"^{pipe} is a FIFO: name files or folders$"):
        list(files_in([pipe]))
    with pytest.raises(UsageError, match=r"^/dev/zero is a device: name files or folders$"):
        list(files_in([Path("/dev/zero")]))


def test_a_folder_that_cannot_be_listed_is_not_passed_over() -> None:
    with closed_folder() as top, pytest.raises(PermissionError, match="closed"):
        list(files_in([top]))

"""Which files a command line means."""

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


def test_a_folder_that_cannot_be_listed_is_not_passed_over() -> None:
    with closed_folder() as top, pytest.raises(PermissionError, match="closed"):
        list(files_in([top]))

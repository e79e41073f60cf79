"""Delivery to a folder: exact bytes, nothing replaced, nothing half there."""

import errno
import hashlib
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from scp.config.schema import FolderDestination
from scp.deliver.folder import FolderDestinationWriter
from scp.deliver.ports import Receipt, Verdict
from scp.durable import Disk, DurableFile, StrPath
from scp.errors import PeerUnavailableError
from scp.model import DeliveryItem
from tests.conftest import REPOSITORY
from tests.deliver.files import ct_items, item_for, save


def writer(
    root: Path, disk: Disk | None = None, template: str | None = None
) -> FolderDestinationWriter:
    section = FolderDestination(kind="folder", path=root)
    if template is not None:
        section = FolderDestination(kind="folder", path=root, template=template)
    return FolderDestinationWriter("archive", section, disk or Disk())


def deliver(destination: FolderDestinationWriter, items: Sequence[DeliveryItem]) -> list[Receipt]:
    return list(destination.deliver(items, lambda: False))


def place(root: Path, item: DeliveryItem) -> Path:
    identity = item.identity
    folder = root / identity.study_instance_uid / identity.series_instance_uid
    return folder / f"{identity.sop_instance_uid}.dcm"


def files_in(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


class Recording(Disk):
    """Notes what is made durable, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []

    def sync_file(self, file: DurableFile) -> None:
        super().sync_file(file)
        self.calls.append(("sync file", ""))

    def sync_folder(self, folder: StrPath, descriptor: int | None = None) -> None:
        super().sync_folder(folder, descriptor)
        self.calls.append(("sync folder", Path(folder).name))

    def link(self, source: StrPath, target: StrPath) -> None:
        super().link(source, target)
        self.calls.append(("link", Path(target).name))

    def make_folder(self, folder: Path) -> None:
        super().make_folder(folder)
        self.calls.append(("make", folder.name))


class Full(Disk):
    """Takes some writes, then no more."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.writes = writes

    def write(self, file: DurableFile, *pieces: bytes | bytearray | memoryview) -> None:
        self.writes -= 1
        if self.writes < 0:
            with self._watched("write"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(file, *pieces)


class WithoutLinks(Disk):
    """A file system like FAT."""

    def link(self, source: StrPath, target: StrPath) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


# -- what arrives ----------------------------------------------------------------------------------


def test_files_arrive_byte_for_byte_where_the_template_says(tmp_path: Path) -> None:
    items = ct_items(tmp_path / "spool", 3)

    receipts = deliver(writer(tmp_path / "archive"), items)

    assert [each.verdict for each in receipts] == [Verdict.DELIVERED] * 3
    assert files_in(tmp_path / "archive") == sorted(
        place(tmp_path / "archive", item) for item in items
    )
    for item in items:
        assert place(tmp_path / "archive", item).read_bytes() == item.path.read_bytes()


def test_a_delivered_file_is_not_the_spools_file(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)

    deliver(writer(tmp_path / "archive"), [item])

    delivered = place(tmp_path / "archive", item)
    assert delivered.stat().st_nlink == item.path.stat().st_nlink == 1


def test_a_template_may_use_any_keyword(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    dataset = pydicom.dcmread(item.path)
    dataset.PatientID = "A/B"
    dataset.BodyPartExamined = "CHEST"
    item = item_for(save(dataset, item.path))
    template = "{Modality}/{PatientID}/{BodyPartExamined}-{Rows}/{SOPInstanceUID}.dcm"

    deliver(writer(tmp_path / "archive", template=template), [item])

    (path,) = files_in(tmp_path / "archive")
    modality, patient, part, _ = path.relative_to(tmp_path / "archive").parts
    assert (modality, part) == ("CT", "CHEST-32")
    assert patient.startswith("A_B-")


def test_a_file_that_is_not_what_was_committed_is_held(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    content = bytearray(item.path.read_bytes())
    content[-1] ^= 1
    item.path.write_bytes(content)

    (receipt,) = deliver(writer(tmp_path / "archive"), [item])

    assert receipt.verdict is Verdict.HELD
    assert receipt.detail.startswith("digest_mismatch")
    assert not files_in(tmp_path / "archive")


def test_a_missing_file_costs_only_its_own_instance(tmp_path: Path) -> None:
    items = ct_items(tmp_path / "spool", 3)
    items[1].path.unlink()

    receipts = deliver(writer(tmp_path / "archive"), items)

    verdicts = [each.verdict for each in receipts]
    assert verdicts == [Verdict.DELIVERED, Verdict.LIMITED, Verdict.DELIVERED]


# -- names that cannot be had ----------------------------------------------------------------------


class Choosy(Disk):
    """A file system that refuses one name."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__()
        self.name = name
        self.number = number

    def link(self, source: StrPath, target: StrPath) -> None:
        if str(target).endswith(self.name):
            with self._watched("link"):
                raise OSError(self.number, os.strerror(self.number))
        super().link(source, target)


class Forbidding(Choosy):
    """One that lets us make nothing at all."""

    def create(self, path: StrPath) -> DurableFile:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    "number",
    [
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EINVAL,
        errno.ELOOP,
        errno.ENXIO,
        errno.EACCES,
    ],
)
def test_a_name_that_the_file_system_refuses_costs_only_its_own_instance(
    tmp_path: Path, number: int
) -> None:
    items = ct_items(tmp_path / "spool", 3)
    root = tmp_path / "archive"

    receipts = deliver(writer(root, Choosy(place(root, items[1]).name, number)), items)

    done = Verdict.DELIVERED
    assert [each.verdict for each in receipts] == [done, Verdict.LIMITED, done]
    assert receipts[1].detail == f"name_refused: {os.strerror(number)}"
    assert files_in(root) == sorted(place(root, items[index]) for index in (0, 2))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_name_that_fails_for_the_disks_sake_makes_the_folder_unavailable(
    tmp_path: Path, number: int
) -> None:
    first, second = ct_items(tmp_path / "spool", 2)
    root = tmp_path / "archive"
    destination = writer(root, Choosy(place(root, second).name, number))
    receipts: list[Receipt] = []

    with pytest.raises(PeerUnavailableError, match=os.strerror(number)):
        receipts.extend(destination.deliver([first, second], lambda: False))

    assert [each.verdict for each in receipts] == [Verdict.DELIVERED]
    assert files_in(root) == [place(root, first)]


def test_a_folder_that_lets_us_write_nothing_is_unavailable(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    root = tmp_path / "archive"

    with pytest.raises(PeerUnavailableError, match="Permission denied"):
        deliver(writer(root, Forbidding(place(root, item).name, errno.EACCES)), [item])


@pytest.mark.parametrize("what", ["a file", "a symbolic link to itself"])
def test_what_lies_where_a_study_should_costs_only_that_study(tmp_path: Path, what: str) -> None:
    first, second = ct_items(tmp_path / "spool", 2)
    second = replace(second, identity=replace(second.identity, study_instance_uid="1.2.3"))
    root = tmp_path / "archive"
    root.mkdir()
    study = root / first.identity.study_instance_uid
    if what == "a file":
        study.write_text("in the way")
    else:
        study.symlink_to(study)

    receipts = deliver(writer(root), [first, second])

    assert [each.verdict for each in receipts] == [Verdict.LIMITED, Verdict.DELIVERED]
    assert receipts[0].detail.startswith("name_refused: ")


def test_a_folder_where_the_file_should_lie_is_a_name_that_is_taken(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    final = place(tmp_path / "archive", item)
    final.mkdir(parents=True)

    (receipt,) = deliver(writer(tmp_path / "archive"), [item])

    assert receipt.verdict is Verdict.DELIVERED
    (delivered,) = files_in(tmp_path / "archive")
    assert delivered.name == f"{final.stem}~2.dcm"


def test_a_source_that_cannot_be_read_for_its_name_is_no_fault_of_the_folder(
    tmp_path: Path,
) -> None:
    broken, good = ct_items(tmp_path / "spool", 2)
    broken.path.unlink()
    broken.path.mkdir()
    template = "{Modality}/{SOPInstanceUID}.dcm"

    receipts = deliver(writer(tmp_path / "archive", template=template), [broken, good])

    assert [each.verdict for each in receipts] == [Verdict.LIMITED, Verdict.DELIVERED]
    assert receipts[0].detail == "file_unreadable: Is a directory"


def test_a_path_that_is_too_long_costs_only_its_own_instance(tmp_path: Path) -> None:
    first, second = ct_items(tmp_path / "spool", 2)
    long = "1." * 31 + "1"
    first = replace(first, identity=replace(first.identity, study_instance_uid=long))
    template = "{StudyInstanceUID}/" * 70 + "{SOPInstanceUID}.dcm"
    root = tmp_path / "archive"
    second = replace(second, identity=replace(second.identity, study_instance_uid="1"))

    receipts = deliver(writer(root, template=template), [first, second])

    assert [each.verdict for each in receipts] == [Verdict.LIMITED, Verdict.DELIVERED]


# -- names that are taken --------------------------------------------------------------------------


def test_the_same_bytes_again_are_already_there(tmp_path: Path) -> None:
    items = ct_items(tmp_path / "spool", 2)
    deliver(writer(tmp_path / "archive"), items)

    receipts = deliver(writer(tmp_path / "archive"), items)

    assert [each.verdict for each in receipts] == [Verdict.ALREADY_THERE] * 2
    assert len(files_in(tmp_path / "archive")) == 2


@pytest.mark.parametrize("disk", [Disk(), WithoutLinks()], ids=["links", "no links"])
def test_other_bytes_under_the_same_name_get_a_number(tmp_path: Path, disk: Disk) -> None:
    first, second, third = ct_items(tmp_path / "spool", 3)
    second, third = (replace(item, identity=first.identity) for item in (second, third))
    destination = writer(tmp_path / "archive", disk)

    receipts = deliver(destination, [first, second, third, second, third])

    done, there = Verdict.DELIVERED, Verdict.ALREADY_THERE
    assert [each.verdict for each in receipts] == [done, done, done, there, there]
    assert "conflict" in receipts[1].detail
    final = place(tmp_path / "archive", first)
    for item, name in ((first, ".dcm"), (second, "~2.dcm"), (third, "~3.dcm")):
        path = final.with_name(final.name.removesuffix(".dcm") + name)
        assert path.read_bytes() == item.path.read_bytes()
    assert len(files_in(tmp_path / "archive")) == 3


def test_a_reservation_that_a_crash_left_without_links_is_used(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    final = place(tmp_path / "archive", item)
    final.parent.mkdir(parents=True)
    final.touch()

    deliver(writer(tmp_path / "archive", WithoutLinks()), [item])

    assert [each.name for each in files_in(tmp_path / "archive")] == [final.name]
    assert final.read_bytes() == item.path.read_bytes()


# -- durability ------------------------------------------------------------------------------------


def test_a_receipt_comes_after_the_file_its_name_and_its_folders_are_durable(
    tmp_path: Path,
) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    disk = Recording()
    receipts = writer(tmp_path / "archive", disk).deliver([item], lambda: False)

    next(receipts)

    final = place(tmp_path / "archive", item)
    study, series = final.parent.parent.name, final.parent.name
    assert disk.calls == [
        ("make", "archive"),
        ("sync folder", tmp_path.name),
        ("make", study),
        ("sync folder", "archive"),
        ("make", series),
        ("sync folder", study),
        ("sync file", ""),
        ("link", final.name),
        ("sync folder", series),
    ]


def test_one_sync_of_the_folder_serves_several_files(tmp_path: Path) -> None:
    items = ct_items(tmp_path / "spool", 20)
    disk = Recording()

    deliver(writer(tmp_path / "archive", disk), items)

    series = items[0].identity.series_instance_uid
    assert disk.calls.count(("sync folder", series)) < len(items)


def test_folders_that_a_dead_process_may_have_made_are_synced_again(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    final = place(tmp_path / "archive", item)
    final.parent.mkdir(parents=True)
    disk = Recording()

    deliver(writer(tmp_path / "archive", disk), [item])

    assert ("sync folder", final.parent.parent.name) in disk.calls
    assert ("sync folder", "archive") in disk.calls


def test_a_file_that_is_already_there_is_synced_before_its_receipt(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    deliver(writer(tmp_path / "archive"), [item])
    disk = Recording()

    deliver(writer(tmp_path / "archive", disk), [item])

    assert disk.calls[-2:] == [
        ("sync file", ""),
        ("sync folder", item.identity.series_instance_uid),
    ]


def test_what_a_crash_left_is_swept_and_what_another_writes_is_not(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    folder = place(tmp_path / "archive", item).parent
    folder.mkdir(parents=True)
    (folder / ".dcmpress-0123456789ab.tmp").write_bytes(b"half a file")
    living = writer(tmp_path / "archive")._temporary(folder)

    deliver(writer(tmp_path / "archive"), [item])

    names = [path.name for path in files_in(tmp_path / "archive")]
    assert names == [Path(living.path).name, place(tmp_path / "archive", item).name]
    living.close()


def test_what_cannot_be_swept_harms_nobody(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    folder = place(tmp_path / "archive", item).parent
    (folder / ".dcmpress-0123456789ab.tmp").mkdir(parents=True)
    (folder / ".dcmpress-ba9876543210.tmp").symlink_to("nowhere")

    (receipt,) = deliver(writer(tmp_path / "archive"), [item])

    assert receipt.verdict is Verdict.DELIVERED


def test_a_process_killed_while_writing_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    program = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from scp.durable import Disk
        from tests.deliver.files import item_for
        from tests.deliver.test_folder import deliver, writer

        class Killing(Disk):
            def sync_file(self, file):
                os.kill(os.getpid(), signal.SIGKILL)

        item = item_for(Path({str(item.path)!r}))
        deliver(writer(Path({str(tmp_path / "archive")!r}), Killing()), [item])
        """
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=False)

    left = files_in(tmp_path / "archive")
    (receipt,) = deliver(writer(tmp_path / "archive"), [item])

    assert killed.returncode < 0
    assert [path.name.startswith(".dcmpress-") for path in left] == [True]
    assert receipt.verdict is Verdict.DELIVERED
    assert files_in(tmp_path / "archive") == [place(tmp_path / "archive", item)]


# -- a disk that fails -----------------------------------------------------------------------------


def test_a_full_disk_is_unavailable_after_the_receipts_of_what_fitted(tmp_path: Path) -> None:
    items = ct_items(tmp_path / "spool", 5)
    receipts: list[Receipt] = []

    with pytest.raises(PeerUnavailableError, match="No space left"):
        receipts.extend(writer(tmp_path / "archive", Full(3)).deliver(items, lambda: False))

    assert [each.instance for each in receipts] == [each.instance for each in items[:3]]
    assert len(files_in(tmp_path / "archive")) == 3


def test_a_file_beyond_the_limit_of_the_file_system_costs_only_its_own_instance(
    tmp_path: Path,
) -> None:
    (long,) = ct_items(tmp_path / "long", 1, rows=64)
    (short,) = ct_items(tmp_path / "short", 1, rows=16)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))

    try:
        receipts = deliver(writer(tmp_path / "archive"), [long, short])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert [each.verdict for each in receipts] == [Verdict.LIMITED, Verdict.DELIVERED]
    assert receipts[0].detail == "file_refused: File too large"
    assert files_in(tmp_path / "archive") == [place(tmp_path / "archive", short)]


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(PeerUnavailableError, match="Not a directory"):
        deliver(writer(tmp_path / "file" / "archive"), [item])


def test_an_archive_that_somebody_deleted_is_made_again(tmp_path: Path) -> None:
    first, second = ct_items(tmp_path / "spool", 2)
    destination = writer(tmp_path / "archive")
    deliver(destination, [first])
    delivered = place(tmp_path / "archive", first)
    delivered.unlink()
    delivered.parent.rmdir()
    delivered.parent.parent.rmdir()

    deliver(destination, [second])

    assert files_in(tmp_path / "archive") == [place(tmp_path / "archive", second)]


# -- check and stop --------------------------------------------------------------------------------


def test_check_leaves_nothing_behind(tmp_path: Path) -> None:
    line = writer(tmp_path / "archive").check()

    assert line.startswith(f"{tmp_path / 'archive'} is writable")
    assert not files_in(tmp_path / "archive")


def test_check_says_why_the_folder_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(PeerUnavailableError, match="No space left"):
        writer(tmp_path / "archive", Full(0)).check()


def test_stopping_ends_after_the_file_at_hand(tmp_path: Path) -> None:
    items = ct_items(tmp_path / "spool", 5)
    asked = iter([False, False, True])

    receipts = list(writer(tmp_path / "archive").deliver(items, lambda: next(asked)))

    assert [each.instance for each in receipts] == [each.instance for each in items[:2]]


def test_a_sidecar_is_numbered_like_its_object(tmp_path: Path) -> None:
    first, second = (
        replace(item, sidecar=item.path.with_name(f"{item.path.name}.restore"))
        for item in ct_items(tmp_path / "spool", 2)
    )
    for item in (first, second):
        assert item.sidecar is not None
        item.sidecar.write_bytes(b"record of " + item.path.name.encode())
    root = tmp_path / "archive"
    destination = writer(root, template="{Modality}.dcm")

    receipts = deliver(destination, [first, second, second])

    assert [each.verdict for each in receipts[:2]] == [Verdict.DELIVERED] * 2
    assert receipts[1].detail.startswith("conflict")
    assert receipts[2].verdict == Verdict.ALREADY_THERE
    assert sorted(path.name for path in root.iterdir()) == [
        "CT.dcm",
        "CT.dcm.restore",
        "CT~2.dcm",
        "CT~2.dcm.restore",
    ]
    for name, item in (("CT.dcm", first), ("CT~2.dcm", second)):
        assert (root / name).read_bytes() == item.path.read_bytes()
        assert item.sidecar is not None
        assert (root / f"{name}.restore").read_bytes() == item.sidecar.read_bytes()


def test_a_sidecar_that_is_not_the_committed_one_is_held_with_its_object(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path / "spool", 1)
    sidecar = item.path.with_name(f"{item.path.name}.restore")
    sidecar.write_bytes(b"a record")
    good = replace(item, sidecar=sidecar, sidecar_sha256=hashlib.sha256(b"a record").hexdigest())
    root = tmp_path / "archive"

    (spoiled,) = deliver(writer(root), [replace(good, sidecar_sha256="0" * 64)])

    assert (spoiled.verdict, spoiled.detail.partition(":")[0]) == (
        Verdict.HELD,
        "digest_mismatch",
    )
    assert [path for path in root.rglob("*") if path.is_file()] == []
    assert [each.verdict for each in deliver(writer(root), [good])] == [Verdict.DELIVERED]

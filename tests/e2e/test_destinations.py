"""A destination that is down, refuses, or leaves the configuration; and what a person does then."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deliver.peers import HandPeer
from tests.e2e.node import RunningNode, Tree, command, until
from tests.e2e.peers import free_port, pynetdicom_archive
from tests.material import ct_series, write_all

pytestmark = pytest.mark.xdist_group("e2e destinations")


def pacs(port: int) -> Tree:
    return {"kind": "dicom", "host": "127.0.0.1", "port": port, "ae_title": "PACS"}


RULES: list[Tree] = [
    {"name": "down", "match": {"called_ae_title": "DOWN"}, "send_to": ["archive", "down"]},
    {
        "name": "refused",
        "match": {"called_ae_title": "REFUSED"},
        "send_to": ["refusing", "archive"],
    },
]


class Site:
    """A node with a PACS that is down at first and one that refuses everything for good."""

    def __init__(self, folder: Path, refusing: HandPeer) -> None:
        self.folder = folder
        self.down_port = free_port()
        self.refusing = refusing
        self.config: Tree = {
            "destinations": {"down": pacs(self.down_port), "refusing": pacs(refusing.port)},
            "rules": RULES,
        }
        self.node = RunningNode(folder / "node", self.config).start()

    def destination(self, name: str) -> Any:
        return self.node.status()["destinations"][name]

    def without(self, name: str) -> Tree:
        destinations = {**self.config["destinations"], name: None}
        rules = [rule for rule in RULES if name not in rule["send_to"]]
        return {"destinations": destinations, "rules": rules}

    def hold(self, seed: int, count: int = 2) -> tuple[str, list[Path]]:
        """A job that is held because the PACS refuses its instances for good."""
        paths = write_all(ct_series(count, 32, 32, seed=seed), self.folder / str(seed))
        known = {each["job"] for each in self.node.held()}

        def new() -> set[str]:
            return {each["job"] for each in self.node.held()} - known

        self.node.send(paths, ae_title="REFUSED")
        until(lambda: bool(new()), self.node.log)
        (job,) = new()
        return job, paths


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with HandPeer(answer=lambda number: 0xA900) as refusing:
        site = Site(tmp_path_factory.mktemp("site"), refusing)
        yield site
        site.node.close()


def test_a_destination_that_is_down_gets_everything_when_it_is_back(
    site: Site, tmp_path: Path
) -> None:
    paths = write_all(ct_series(3, 32, 32, seed=501), tmp_path / "ct")
    node = site.node
    before = node.wait_idle()

    node.send(paths, ae_title="DOWN")

    # Three tries: the wait grows.
    until(lambda: node.log().count("delivery to down failed") >= 2, "it is not tried again")
    waiting = site.destination("down")
    assert waiting["pending"] == 3
    assert "refused" in waiting["last_error"]
    assert node.status()["pending"] == 3
    assert len([path for path in node.archived() if path.name in {p.name for p in paths}]) == 3
    with pynetdicom_archive(tmp_path / "pacs", port=site.down_port):
        # Nobody has to wait for the next try, which may come first all the same.
        assert node.command("retry", "--all").endswith(" jobs are tried again\n")
        node.wait_for(delivered=before["delivered"] + 3, pending=0)
    assert len(list((tmp_path / "pacs").iterdir())) == 3
    assert site.destination("down")["last_error"] == ""


def test_what_is_refused_for_good_is_held_and_shown(site: Site) -> None:
    job, _ = site.hold(seed=502)

    (entry,) = site.node.json("held", job)
    table = site.node.command("held")

    assert entry["instances"] == 2
    assert list(entry["reasons"]) == ["refusing"]
    assert job in table
    assert "A900" in table
    assert Path(entry["folder"]).is_dir()
    site.node.command("discard", job, "--reason", "a test")


def test_retry_delivers_what_was_held(site: Site) -> None:
    job, _ = site.hold(seed=503)
    before = site.node.status()

    site.refusing.answer = lambda number: 0x0000
    try:
        site.node.command("retry", job)
        after = site.node.wait_for(held=before["held"] - 2, pending=0)
    finally:
        site.refusing.answer = lambda number: 0xA900

    assert after["delivered"] - before["delivered"] == 2


def test_what_is_refused_again_after_a_retry_is_held_again(site: Site) -> None:
    job, _ = site.hold(seed=504)
    stored = len(site.refusing.stored)

    site.node.command("retry", job)

    until(lambda: len(site.refusing.stored) == stored + 2, "it is not tried again")
    until(lambda: bool(site.node.held()), "it is not held again")
    assert "discarded" in site.node.command("discard", job, "--reason", "a test")


def test_discard_gives_up_with_a_reason_and_is_counted(site: Site) -> None:
    job, paths = site.hold(seed=505)
    before = site.node.status()

    said = site.node.command("discard", job, "--reason", "the PACS has it already")

    assert said == f"{job}: 2 instances discarded\n"
    after = site.node.wait_for(held=before["held"] - 2, discarded=before["discarded"] + 2)
    assert after["received"] == before["received"]
    assert site.node.held() == []
    site.node.settle()
    # A discarded dataset is no repeat: sent again, it is received again.
    site.node.send(paths)
    site.node.wait_for(received=before["received"] + 2, pending=0)


def test_what_is_sent_again_while_it_is_held_does_not_depend_on_what_becomes_of_that(
    site: Site,
) -> None:
    job, paths = site.hold(seed=510)
    before = site.node.status()
    site.node.send(paths, ae_title="REFUSED")
    site.node.wait_for(held=before["held"] + 2)

    site.node.command("discard", job, "--reason", "the other one is to go")

    site.refusing.answer = lambda number: 0x0000
    try:
        site.node.command("retry", "--all")
        after = site.node.wait_for(held=before["held"] - 2, pending=0)
    finally:
        site.refusing.answer = lambda number: 0xA900
    assert after["delivered"] - before["delivered"] == 2
    assert after["discarded"] - before["discarded"] == 2


def test_names_that_are_not_held_are_refused(site: Site) -> None:
    for arguments in (
        ["held", "no-such-job"],
        ["retry", "no-such-job"],
        ["discard", "no-such-job", "--reason", "x"],
    ):
        assert "no job no-such-job" in site.node.command(*arguments, code=1)


@pytest.mark.timeout(240)
def test_the_same_with_the_node_down_and_a_destination_that_left(
    site: Site, tmp_path: Path
) -> None:
    node = site.node
    first, _ = site.hold(seed=506)
    second, _ = site.hold(seed=507, count=3)
    waiting = write_all(ct_series(1, 32, 32, seed=508), tmp_path / "ct")
    node.send(waiting, ae_title="DOWN")
    node.wait_for(pending=1)
    until(lambda: site.destination("down")["last_error"] != "", "it was not tried")
    running = node.status()
    assert node.terminate() == 0

    status = node.json("status")
    jobs = {each["job"]: each["instances"] for each in node.json("held")}
    assert "discarded" in node.command("discard", first, "--reason", "a test")
    after = node.json("status")

    assert not status["running"]
    names = ("received", "pending", "delivered", "held", "discarded", "converted")
    assert [status[name] for name in names] == [running[name] for name in names]
    assert jobs == {first: 2, second: 3}
    assert (after["held"], after["discarded"]) == (3, running["discarded"] + 2)
    assert node.command("retry", second).startswith("1 jobs are released, and delivered when")
    assert node.json("status")["pending"] == 1 + 3

    # The other PACS leaves the configuration: what waits for it is held, for no one else takes it.
    node.configure(site.without("down"))
    node.start()
    node.wait_for(held=4, pending=0)
    reasons = {each["job"]: each["reasons"] for each in node.held()}
    assert reasons.pop(second) == {"refusing": {"the peer answers A900": 3}}
    assert list(reasons.values()) == [{"down": {"destination_left_configuration": 1}}]

    # It comes back.
    node.terminate()
    node.configure(site.config)
    node.start()
    assert node.wait_for(held=4)["pending"] == 0
    with pynetdicom_archive(tmp_path / "pacs", port=site.down_port):
        node.command("retry", *reasons)
        node.wait_for(held=3, pending=0)
    assert len(list((tmp_path / "pacs").iterdir())) == 1
    node.command("discard", second, "--reason", "a test")
    node.wait_for(held=0, pending=0)
    node.settle()


@pytest.mark.timeout(240)
def test_a_job_whose_commit_is_damaged_is_held_and_counted(site: Site) -> None:
    node = site.node
    job, _ = site.hold(seed=509)
    commit = node.data / "spool" / "held" / job / "job.json"
    until(commit.exists, node.log)  # It goes there once its other destination has it.
    before = node.status()
    node.terminate()
    good = commit.read_bytes()
    commit.write_bytes(good[:-20])

    node.start()

    status = node.status()
    assert [status[name] for name in ("received", "held")] == [before["received"], 2]
    assert "cannot be read" in node.command("discard", job, "--reason", "x", code=1)
    assert "still held" in node.command("retry", job, code=1)
    (entry,) = node.held()
    assert entry["reasons"] == {"": {"job_unreadable": 2}}
    commit.write_bytes(good)
    site.refusing.answer = lambda number: 0x0000
    try:
        node.command("retry", job)
        node.wait_for(held=0, pending=0, delivered=before["delivered"] + 2)
    finally:
        site.refusing.answer = lambda number: 0xA900


def test_without_a_node_and_without_a_data_folder_the_commands_say_so(tmp_path: Path) -> None:
    config = tmp_path / "dcmpress.yaml"
    config.write_text(
        f"node: {{data: {tmp_path / 'data'}}}\n"
        f"destinations: {{archive: {{kind: folder, path: {tmp_path / 'archive'}}}}}\n"
        "default: {send_to: [archive]}\n"
    )

    for arguments in (["status"], ["held"], ["retry", "--all"]):
        done = command(*arguments, "-c", str(config))
        assert done.returncode == 1
        assert "no node has run" in done.stderr
    assert not (tmp_path / "data").exists()

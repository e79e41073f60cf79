"""What an object store has of a study, told by its keys."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scp.config.remote import S3Destination
from scp.deliver.listing import Listing
from scp.deliver.object_store import ObjectStoreWriter
from scp.errors import DeliveryError, PeerUnavailableError
from tests.deliver.azure import azurite
from tests.deliver.files import ct_items
from tests.deliver.places import (
    BUCKET,
    azure_section,
    client_of,
    credentials,
    object_store,
    s3_section,
)
from tests.e2e.peers import held_port


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, Any]]]:
    with object_store() as url:
        client = client_of(url)
        for key in (
            "ct/1.2/1.3/1.4.dcm",
            "ct/1.2/1.3/1.4~2.dcm",
            "ct/1.2/1.3/1.5.dcm",
            "ct/1.2/1.3/.dcmpress-probe",
            "ct/1.2/1.3/1.5.dcm.json",
            "ct/1.20/1.3/1.6.dcm",
            "mr/1.2/1.3/1.7.dcm",
        ):
            client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
        for number in range(1100):  # More than a page.
            client.put_object(Bucket=BUCKET, Key=f"ct/1.9/1.3/1.{number}.dcm", Body=b"x")
        yield url, credentials(tmp_path_factory.mktemp("keys"))


def section(store: tuple[str, dict[str, Any]], **more: Any) -> S3Destination:
    url, keys = store
    return s3_section(url, **{"prefix": "ct", **keys, **more})


def test_each_study_has_its_own_and_nothing_else_counts(
    store: tuple[str, dict[str, Any]],
) -> None:
    listing = Listing(section(store))

    assert listing.instances_of("1.2") == {"1.4", "1.5"}
    assert listing.instances_of("1.20") == {"1.6"}
    assert listing.instances_of("1.3") == set()
    assert len(listing.instances_of("1.9")) == 1100


def test_a_template_may_have_the_study_anywhere(store: tuple[str, dict[str, Any]]) -> None:
    template = "{SeriesInstanceUID}/{SOPInstanceUID}/{StudyInstanceUID}.dcm"

    listing = Listing(section(store, template=template))

    assert listing.instances_of("1.5") == {"1.3"}


def test_keys_that_do_not_name_an_instance_cannot_tell(
    store: tuple[str, dict[str, Any]],
) -> None:
    with pytest.raises(
        DeliveryError, match="its template does not name the study and the instance"
    ):
        Listing(section(store, template="{StudyInstanceUID}/{InstanceNumber}.dcm"))


def test_a_store_that_is_away_or_has_no_such_bucket_is_no_empty_one(
    store: tuple[str, dict[str, Any]],
) -> None:
    with held_port() as port, pytest.raises(PeerUnavailableError):
        Listing(section(store, endpoint=f"http://127.0.0.1:{port}")).instances_of("1.2")
    with pytest.raises(DeliveryError, match="the store answers 404"):
        Listing(section(store, bucket="no-such-bucket")).instances_of("1.2")


def test_what_it_says_names_no_study(store: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    absent = {
        "access_key_id": {"file": tmp_path / "no"},
        "secret_access_key": {"file": tmp_path / "no"},
    }

    with pytest.raises(DeliveryError) as caught:
        Listing(section(store, **absent)).instances_of("1.2.3.4")

    assert "1.2.3.4" not in str(caught.value)


def test_what_azure_has_of_a_study_is_told_by_its_keys_too(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 3)
    with azurite(tmp_path) as running:
        listed = azure_section(running, tmp_path)
        list(ObjectStoreWriter("azure", listed).deliver(items, lambda: False))

        found = Listing(listed).instances_of(items[0].identity.study_instance_uid)

    assert found == {item.identity.sop_instance_uid for item in items}

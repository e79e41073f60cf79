"""Jobs as values, what destinations answer to them, and the same datasets once more."""

import hashlib
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scp.buffer.job import Job, JobInstance
from scp.convert.digests import dataset_sha256
from scp.deliver.ports import Receipt, Verdict
from scp.deliver.send import item_of
from scp.model import Form, Identity, Origin, SpooledInstance
from scp.pipeline.live import Live
from scp.pipeline.tasks import Outcome

EXPLICIT = "1.2.840.10008.1.2.1"
ORIGIN = Origin(calling_ae_title="CT1", called_ae_title="DCMPRESS", peer_address="127.0.0.1")
NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def job_of(name: str, instances: list[JobInstance]) -> Job:
    return Job(
        name=name,
        study_instance_uid=instances[0].identity.study_instance_uid,
        series_instance_uid=instances[0].identity.series_instance_uid,
        created=time.time(),
        rules="rules-1",
        instances=tuple(instances),
    )


def instance_of(path: Path, **changes: Any) -> JobInstance:
    """What a commit says of a file that was converted; to a copy of itself, as far as tests care."""
    item = item_of(path)
    assert not isinstance(item, Receipt)
    content = path.read_bytes()
    values: dict[str, Any] = {
        "name": path.name,
        "identity": item.identity,
        "origin": ORIGIN,
        "received": path.stat().st_mtime,
        "source_transfer_syntax": EXPLICIT,
        "source_bytes": len(content),
        "rule": "default",
        "form": Form.HTJ2K.value,
        "send_to": ("archive",),
        "transfer_syntax": EXPLICIT,
        "result_bytes": len(content),
        "dataset_sha256": dataset_sha256(path),
        "normal_sha256": f"normal of {path.name}",
        "result_sha256": hashlib.sha256(content).hexdigest(),
    }
    return JobInstance(**{**values, **changes})


def come_again(
    instance: JobInstance, *, transfer_syntax: str = EXPLICIT, **digests: str
) -> tuple[SpooledInstance, Outcome]:
    """The same dataset once more, as a worker has examined it; or another one under its UID."""
    spooled = SpooledInstance(
        path=Path(instance.name),
        identity=instance.identity,
        origin=instance.origin,
        transfer_syntax=transfer_syntax,
        file_bytes=instance.source_bytes,
    )
    known = {
        "dataset_sha256": instance.dataset_sha256,
        "normal_sha256": instance.normal_sha256,
        "result_sha256": instance.result_sha256,
    }
    return spooled, Outcome(**{**known, **digests})  # type: ignore[arg-type]


def instance(name: str = "a.dcm", **changes: Any) -> JobInstance:
    values: dict[str, Any] = {
        "name": name,
        "identity": Identity(
            sop_class_uid="1.1",
            sop_instance_uid=f"1.2.{name}",
            study_instance_uid="1.3",
            series_instance_uid="1.4",
        ),
        "origin": ORIGIN,
        "received": NOON.timestamp(),
        "source_transfer_syntax": EXPLICIT,
        "source_bytes": 500,
        "rule": "default",
        "form": Form.HTJ2K.value,
        "send_to": ("archive", "pacs"),
        "transfer_syntax": "1.2.840.10008.1.2.4.202",
        "result_bytes": 200,
    }
    return JobInstance(**{**values, **changes})


def takes(destination: str, names: Iterable[str], job: Live) -> None:
    job.take(destination, {name: answer(name, Verdict.DELIVERED) for name in names}, NOON)


def answer(name: str, verdict: Verdict) -> Receipt:
    return Receipt(instance=name, verdict=verdict, status="0000", detail="why")

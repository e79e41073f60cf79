"""What a start makes of conversions that the disk has lost since their commit."""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

from scp.buffer.job import Job, JobInstance
from scp.buffer.jobs import ORIGINAL, JobFolders
from scp.convert.digests import dataset_sha256
from scp.convert.enhanced.record import sidecar_of
from scp.convert.refusals import NotConvertibleError
from scp.model import PassReason

logger = logging.getLogger(__name__)


def with_what_is_there(job: Job, folders: JobFolders) -> Job:
    """The job itself, or with originals where a conversion is gone and the original is as received.

    An original that is not, or is gone too, stays what it was to be; its delivery will ask for a person.
    """
    digests = {
        i.name: digest
        for i in job.instances
        if i.form != ORIGINAL
        and i.is_delivered
        and not all(path.exists() for path in _results(job, i, folders))
        and (digest := _digest_of_original(folders.source(job.name) / i.name, i))
    }
    if not digests:
        return job
    logger.error("job %s lost %d conversions: originals instead", job.name, len(digests))
    job = job.as_originals(PassReason.RESULT_LOST, digests)
    return replace(
        job,
        instances=tuple(
            replace(i, result_sha256=digests[i.name]) if i.name in digests else i
            for i in job.instances
        ),
    )


def _results(job: Job, instance: JobInstance, folders: JobFolders) -> list[Path]:
    """What the deliveries of an instance take."""
    result = folders.result(job.name, instance.form, instance.delivered_as)
    has_sidecar = any(v.has_sidecar for v in job.volumes if v.name == instance.volume)
    others = [folders.result(job.name, form.form, instance.name) for form in instance.forms]
    return [result, *others, sidecar_of(result)] if has_sidecar else [result, *others]


def _digest_of_original(path: Path, instance: JobInstance) -> str:
    """The file's, once its dataset was found to be the one that was received; else empty."""
    try:
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest()
        is_same = instance.dataset_sha256 in ("", dataset_sha256(path))
    except (OSError, NotConvertibleError):
        return ""
    if not is_same:
        logger.error("an original of job %s is not what was received any more", path.parts[-3])
    return whole if is_same else ""

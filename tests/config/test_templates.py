"""Templates of paths: what cannot work is said when the configuration is read, and not by a node later."""

import pytest

from scp.config.load import parse
from scp.errors import ConfigError


def fault(template: str, kind: str = "folder, path: a") -> str:
    section = f"destinations: {{archive: {{kind: {kind}, template: {template!r}}}}}"
    with pytest.raises(ConfigError) as raised:
        parse(section.encode(), "c.yaml")
    (found,) = raised.value.faults
    return found.partition("archive.template: ")[2]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("", "without empty parts"),
        ("/{SOPInstanceUID}", "without empty parts"),
        ("a//{SOPInstanceUID}", "without empty parts"),
        ("../{SOPInstanceUID}", "without empty parts, . and .."),
        ("./{SOPInstanceUID}", "without empty parts, . and .."),
        ("{SOPInstanceUID}/", "without empty parts"),
        ("{SOPInstanceUid}", "did you mean 'SOPInstanceUID'?"),
        ("{}", "{} is no DICOM keyword"),
        ("{called_ae_title}/{SOPInstanceUID}", "{called_ae_title} is no DICOM keyword"),
        ("{TransferSyntaxUID}", "'TransferSyntaxUID' is no attribute of the dataset"),
        ("{PixelData}", "{PixelData} has no text"),
        ("{RequestAttributesSequence}/{SOPInstanceUID}", "has no text"),
        ("{SOPInstanceUID:>5}", "only {Keyword}"),
        ("{SOPInstanceUID!r}", "only {Keyword}"),
        ("{SOPInstanceUID", "is no template"),
        ("image.dcm", "the same name"),
        (".dcmpress-{SOPInstanceUID}", "cannot be part of a name"),
    ],
)
def test_a_template_that_cannot_work_is_refused(template: str, words: str) -> None:
    assert words in fault(template)
    assert words in fault(template, "s3, bucket: abc")


def test_a_name_may_be_made_of_several_attributes() -> None:
    template = "{PatientID}/{Modality}-{InstanceNumber}-{SOPInstanceUID}.dcm"
    content = f"destinations: {{archive: {{kind: folder, path: a, template: '{template}'}}}}"

    config = parse(content.encode(), "c.yaml")

    assert config.destinations["archive"].place == f"a/{template}"

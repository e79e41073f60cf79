"""Made-up images that behave like real ones: shapes and noise that compress like a scanner's.

Nothing in them stems from a person. The same seed gives the same UIDs everywhere, and the same
pixels wherever numpy's sine rounds alike.
"""

import uuid
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from scp.cli.demo_scene import Scene

_NAMESPACE: Final = uuid.UUID("5b1d2f6e-7a43-4c55-9f0e-0d0c0b0a0908")


def uid(*parts: object) -> str:
    """A UID under 2.25 (PS3.5 B.2) that depends on ``parts`` alone."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}"


def ct_series(
    count: int, rows: int = 512, columns: int = 512, seed: int = 0, *, signed: bool = False
) -> Iterator[FileDataset]:
    """Yield axial CT slices from head to foot, 12 bits stored in 16, about 2.5:1 by HTJ2K.

    Parameters
    ----------
    signed
        Two's complement with a Rescale Intercept of 0, else unsigned with -1024.
    """
    scene = Scene(rows, columns, seed)
    template = _image(CTImageStorage, "CT", seed, rows, columns)
    _cross_sectional(template, seed, rows, columns, thickness=1.25)
    _set(
        template,
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        KVP="120",
        DataCollectionDiameter="500",
        ReconstructionDiameter="360",
        GantryDetectorTilt="0",
        TableHeight="152.5",
        RotationDirection="CW",
        ExposureTime="500",
        XRayTubeCurrent="300",
        Exposure="150",
        FilterType="BODY",
        ConvolutionKernel="STANDARD",
        RescaleIntercept="0" if signed else "-1024",
        RescaleSlope="1",
        RescaleType="HU",
        WindowCenter=["40", "-600"],
        WindowWidth=["400", "1500"],
        PixelPaddingValue=-1024 if signed else 0,
    )
    _bits(template, stored=12, signed=signed)
    for index in range(count):
        hounsfield = scene.body(index / max(count, 40), air=-1000.0, tissue=60.0)
        hounsfield += scene.noise(21.0, index)
        lowest, offset = (-1024, 0) if signed else (0, 1024)
        yield _slice(template, seed, index, hounsfield + offset, lowest, lowest + 4095, 1.25)


def mr_series(
    count: int, rows: int = 256, columns: int = 256, seed: int = 0
) -> Iterator[FileDataset]:
    """Yield axial MR slices, 12 bits stored in 16, unsigned, dark around the body."""
    scene = Scene(rows, columns, seed + 1)
    template = _image(MRImageStorage, "MR", seed, rows, columns)
    _cross_sectional(template, seed, rows, columns, thickness=3.0)
    _set(
        template,
        ImageType=["ORIGINAL", "PRIMARY", "M", "NONE"],
        ScanningSequence="GR",
        SequenceVariant="SP",
        ScanOptions="",
        MRAcquisitionType="3D",
        SequenceName="fl3d1",
        AngioFlag="N",
        RepetitionTime="1900",
        EchoTime="2.52",
        NumberOfAverages="1",
        ImagingFrequency="123.25",
        ImagedNucleus="1H",
        EchoNumbers="1",
        MagneticFieldStrength="3",
        NumberOfPhaseEncodingSteps=str(rows),
        EchoTrainLength="1",
        PercentSampling="100",
        PercentPhaseFieldOfView="100",
        PixelBandwidth="170",
        FlipAngle="9",
        SAR="0.1",
        WindowCenter="600",
        WindowWidth="1200",
    )
    _bits(template, stored=12, signed=False)
    for index in range(count):
        signal = scene.body(index / max(count, 40), air=0.0, tissue=520.0)
        # The magnitude of a noisy signal is never negative, so the background stays dark.
        yield _slice(template, seed, index, np.abs(signal + scene.noise(9.0, index)), 0, 4095, 3.0)


def pet_series(
    count: int, rows: int = 168, columns: int = 168, seed: int = 0
) -> Iterator[FileDataset]:
    """Yield PET slices, signed 16 bits, with a Rescale Slope of its own for each slice."""
    scene = Scene(rows, columns, seed + 2)
    template = _image(PositronEmissionTomographyImageStorage, "PT", seed, rows, columns)
    _cross_sectional(template, seed, rows, columns, thickness=3.0)
    isotope = _dataset(
        CodeValue="C-111A1", CodingSchemeDesignator="SRT", CodeMeaning="^18^Fluorine"
    )
    tracer = _dataset(
        RadionuclideCodeSequence=[isotope],
        RadiopharmaceuticalRoute="",
        RadiopharmaceuticalStartTime="091500.00",
        RadionuclideTotalDose="370000000",
        RadionuclideHalfLife="6586.2",
        RadionuclidePositronFraction="0.97",
    )
    _set(
        template,
        ImageType=["ORIGINAL", "PRIMARY"],
        Units="BQML",
        CountsSource="EMISSION",
        SeriesType=["WHOLE BODY", "IMAGE"],
        NumberOfSlices=count,
        CorrectedImage=["DECY", "ATTN", "SCAT", "DTIM", "RAN"],
        DecayCorrection="START",
        AttenuationCorrectionMethod="CT",
        ReconstructionMethod="OSEM",
        CollimatorType="NONE",
        FrameReferenceTime="1000",
        ActualFrameDuration="120000",
        DecayFactor="1.05",
        RadiopharmaceuticalInformationSequence=[tracer],
        PatientOrientationCodeSequence=[],
        PatientGantryRelationshipCodeSequence=[],
        RescaleIntercept="0",
    )
    _bits(template, stored=16, signed=True)
    # Said by the two code sequences instead (PS3.3 C.8.9.5).
    del template.PatientPosition
    for index in range(count):
        activity = np.maximum(scene.body(index / max(count, 40), air=0.0, tissue=4000.0), 0.0)
        counts = activity * (1.0 + scene.noise(0.2, index))
        top = float(counts.max()) or 1.0
        dataset = _slice(template, seed, index, counts * (32767.0 / top), -32768, 32767, 3.0)
        _set(dataset, ImageIndex=index + 1, RescaleSlope=f"{top / 32767.0:.8f}")
        yield dataset


def colour_image(
    rows: int = 600, columns: int = 800, seed: int = 0, *, frames: int = 1, planar: bool = False
) -> FileDataset:
    """An ultrasound image in RGB, 8 bits; with several frames a cine loop."""
    storage = UltrasoundImageStorage if frames == 1 else UltrasoundMultiFrameImageStorage
    dataset = _image(storage, "US", seed, rows, columns)
    scene = Scene(rows, columns, seed + 3)
    pixels = np.zeros((frames, rows, columns, 3), np.uint8)
    for index in range(frames):
        echo = np.clip(scene.body(0.4 + index / 200, air=8.0, tissue=90.0), 0.0, 255.0)
        grey = np.clip(echo + scene.noise(0.12, index) * echo, 0.0, 255.0).astype(np.uint8)
        pixels[index] = grey[..., np.newaxis]
        flow = pixels[index, rows // 3 : rows // 2, columns // 3 : columns // 2]
        flow[..., 0] = np.maximum(flow[..., 0], 170)
        flow[..., 2] //= 3
    _set(
        dataset,
        ImageType=["ORIGINAL", "PRIMARY", "", "0011"],
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=int(planar),
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        UltrasoundColorDataPresent=1,
        LossyImageCompression="00",
        PatientOrientation="",
        Laterality="",
        InstanceNumber="1",
        SOPInstanceUID=uid(seed, "US", "instance", 0),
    )
    if frames > 1:
        _set(dataset, NumberOfFrames=str(frames), FrameTime="40")
        dataset.FrameIncrementPointer = 0x00181063  # Frame Time
    if planar:
        pixels = np.ascontiguousarray(np.moveaxis(pixels, 3, 1))
    return _finish(dataset, pixels.tobytes(), "OB")


def radiograph(rows: int = 2500, columns: int = 2048, seed: int = 0) -> FileDataset:
    """A digital radiograph for presentation, 14 bits stored in 16."""
    dataset = _image(DigitalXRayImageStorageForPresentation, "DX", seed, rows, columns)
    scene = Scene(rows, columns, seed + 4)
    density = scene.body(0.3, air=14000.0, tissue=6000.0) + scene.noise(30.0, 0)
    region = _dataset(CodeValue="T-D3000", CodingSchemeDesignator="SRT", CodeMeaning="Chest")
    view = _dataset(
        CodeValue="R-10206", CodingSchemeDesignator="SRT", CodeMeaning="antero-posterior"
    )
    view.ViewModifierCodeSequence = []
    _bits(dataset, stored=14, signed=False)
    _set(
        dataset,
        ImageType=["ORIGINAL", "PRIMARY", ""],
        PresentationIntentType="FOR PRESENTATION",
        PixelIntensityRelationship="LOG",
        PixelIntensityRelationshipSign=-1,
        PresentationLUTShape="IDENTITY",
        RescaleIntercept="0",
        RescaleSlope="1",
        RescaleType="US",
        BurnedInAnnotation="NO",
        LossyImageCompression="00",
        ImagerPixelSpacing=["0.16", "0.16"],
        DetectorType="DIRECT",
        BodyPartExamined="CHEST",
        ImageLaterality="U",
        PatientOrientation=["L", "F"],
        AnatomicRegionSequence=[region],
        ViewPosition="AP",
        PositionerType="",
        ViewCodeSequence=[view],
        AcquisitionContextSequence=[],
        WindowCenter="8192",
        WindowWidth="16384",
        InstanceNumber="1",
        SOPInstanceUID=uid(seed, "DX", "instance", 0),
    )
    pixels = np.clip(np.rint(density), 0, 16383).astype("<u2")
    return _finish(dataset, pixels.tobytes(), "OW")


def write(dataset: FileDataset, folder: Path) -> Path:
    """Write a DICOM file (PS3.10) named after the instance, encoded as its file meta says."""
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def _image(storage: str, modality: str, seed: int, rows: int, columns: int) -> Dataset:
    equipment_note = _dataset(CodeValue="121311", CodingSchemeDesignator="DCM")
    equipment_note.CodeMeaning = "Localizer"
    reason = _dataset(CodeValue="R52", CodingSchemeDesignator="I10", CodeMeaning="Pain")
    # Its UIDs come before the series' own, which is what a careless reader would find first.
    referenced = _dataset(
        ReferencedSOPClassUID=storage,
        ReferencedSOPInstanceUID=uid(seed, modality, "referenced"),
        PurposeOfReferenceCodeSequence=[equipment_note],
    )
    dataset = _dataset(
        SpecificCharacterSet="ISO_IR 100",
        InstanceCreationDate="20260105",
        InstanceCreationTime="101530.250",
        SOPClassUID=storage,
        StudyDate="20260105",
        SeriesDate="20260105",
        AcquisitionDate="20260105",
        ContentDate="20260105",
        StudyTime="101000",
        SeriesTime="101200",
        AcquisitionTime="101215.5",
        ContentTime="101216",
        AccessionNumber=f"A{seed:06d}",
        Modality=modality,
        Manufacturer="DCMPRESS",
        InstitutionName="Example Hospital",
        ReferringPhysicianName="",
        StationName="DEMO1",
        StudyDescription="Made-up study",
        SeriesDescription=f"Made-up {modality}",
        ManufacturerModelName="Generator",
        ReferencedImageSequence=[referenced],
        PatientName=f"Phantom^Number {seed}",
        PatientID=f"PHANTOM-{seed:04d}",
        PatientBirthDate="19700101",
        PatientSex="O",
        PatientAge="056Y",
        PatientWeight="75",
        DeviceSerialNumber="0001",
        SoftwareVersions="1.0",
        ProtocolName="Generated",
        StudyInstanceUID=uid(seed, "study"),
        SeriesInstanceUID=uid(seed, modality, "series"),
        StudyID=str(seed),
        SeriesNumber="1",
        AcquisitionNumber="1",
        RequestedProcedureCodeSequence=[reason],
        Rows=rows,
        Columns=columns,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
    )
    block = dataset.private_block(0x0019, "DCMPRESS GENERATOR", create=True)
    block.add_new(0x01, "LO", "private text")
    block.add_new(0x02, "DS", "3.25")
    block.add_new(0x03, "OB", bytes(range(64)))
    block.add_new(0x04, "SQ", [_dataset(CodeValue="1", CodeMeaning="inside a private sequence")])
    return dataset


def _cross_sectional(
    dataset: Dataset, seed: int, rows: int, columns: int, *, thickness: float
) -> None:
    spacing = 360.0 / max(rows, columns)
    _set(
        dataset,
        BodyPartExamined="CHEST",
        PatientPosition="HFS",
        SliceThickness=str(thickness),
        SpacingBetweenSlices=str(thickness),
        FrameOfReferenceUID=uid(seed, "frame of reference"),
        PositionReferenceIndicator="",
        ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
        PixelSpacing=[f"{spacing:.6f}", f"{spacing:.6f}"],
    )


def _bits(dataset: Dataset, *, stored: int, signed: bool) -> None:
    _set(
        dataset,
        BitsAllocated=16,
        BitsStored=stored,
        HighBit=stored - 1,
        PixelRepresentation=int(signed),
    )


def _slice(
    template: Dataset,
    seed: int,
    index: int,
    values: NDArray[np.floating],
    lowest: int,
    highest: int,
    spacing: float,
) -> FileDataset:
    position = 250.0 - index * spacing
    dataset = deepcopy(template)
    _set(
        dataset,
        SOPInstanceUID=uid(seed, template.Modality, "instance", index),
        InstanceNumber=str(index + 1),
        ImagePositionPatient=["-180", "-180", f"{position:.2f}"],
        SliceLocation=f"{position:.2f}",
        AcquisitionTime=f"1012{15 + index // 100 % 40:02d}.{index % 100:02d}",
    )
    pixels = np.clip(np.rint(values), lowest, highest).astype("<i2" if lowest < 0 else "<u2")
    return _finish(dataset, pixels.tobytes(), "OW")


def _finish(dataset: Dataset, pixels: bytes, vr: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid("implementation")  # type: ignore[assignment]
    dataset.add_new(0x7FE00010, vr, pixels + b"\0" * (len(pixels) % 2))
    return FileDataset("", dataset, file_meta=meta, preamble=bytes(128))


def _dataset(**values: Any) -> Dataset:
    dataset = Dataset()
    _set(dataset, **values)
    return dataset


def _set(dataset: Dataset, **values: Any) -> None:
    for keyword, value in values.items():
        setattr(dataset, keyword, value)

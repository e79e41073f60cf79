"""What is to become of an instance: site rules and what DICOM allows."""

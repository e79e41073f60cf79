"""DICOM in: listener, association, limits, statuses."""

"""DICOM out: one queue per destination, receipts, retries."""

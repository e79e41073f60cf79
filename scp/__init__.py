"""dcmpress: a DICOM node that compresses on ingest. The folders are the flow."""

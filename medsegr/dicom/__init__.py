"""DICOM archives: a folder of files in place of a PACS, and what DICOMweb says about it."""

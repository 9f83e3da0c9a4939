"""Where images come from and labels go: a PACS or a folder of DICOM files, as a MONAI Label datastore."""

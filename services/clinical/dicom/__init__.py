"""DICOM objects: loading image series, reading RT structure sets, building segmentations and measurement reports."""

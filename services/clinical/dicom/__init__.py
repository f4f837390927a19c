"""DICOM objects: loading image series, reading RT structure sets, building segmentations and measurement reports."""

import warnings

# The warnings of these libraries quote attribute values, patient names among them, which must not reach a log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"(pydicom|highdicom)(\.|$)")

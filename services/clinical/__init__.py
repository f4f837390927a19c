"""The shared clinical language: codes, units, patient identity, provenance, DICOM and FHIR builders. Knows no service."""

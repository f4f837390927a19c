"""What an analysis gives to the archive and the record: parametric maps, key images, FHIR.

Segmentations and measurement reports are made by `services.imaging.objects`; all objects carry UIDs and times that depend
on their cause only, so that a replay makes the same bytes.
"""

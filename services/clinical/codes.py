"""Coded concepts that imaging findings use, as constants.

Source: DICOM PS3.16 Annex D (DCM) and Table 8-1 (coding schemes), CID 7469 (generic intensity and size measurements),
CID 85 (SUV units); SNOMED CT; UCUM. Neither DICOM nor LOINC has one code each for SUVmax, SUVpeak and SUVmean (DICOM
post-coordinates SUVbw with a derivation), so events use codes of Osler's own system for these, and `SR_FORM` says how
each is written in a DICOM SR.
"""

from __future__ import annotations

from dataclasses import dataclass

from osler.common.v1 import common_pb2

DCM = "http://dicom.nema.org/resources/ontology/DCM"
SCT = "http://snomed.info/sct"
UCUM = "http://unitsofmeasure.org"
LOINC = "http://loinc.org"
#: IBSI's coding scheme (DICOM PS3.16 Table 8-1) by its registered UID, as it has no URI of its own.
IBSI = "urn:oid:1.2.840.10008.2.16.13"
NCIT = "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl"
OSLER_MEASUREMENT = "urn:osler:measurement"
OSLER_STRUCTURE = "urn:osler:structure"

#: Code-system URI to DICOM coding scheme designator (PS3.16 Table 8-1).
DICOM_SCHEME = {
    DCM: "DCM",
    SCT: "SCT",
    UCUM: "UCUM",
    LOINC: "LN",
    IBSI: "IBSI",
    NCIT: "NCIt",
    OSLER_MEASUREMENT: "99OSLER",
    OSLER_STRUCTURE: "99OSLER",
}


@dataclass(frozen=True)
class Concept:
    """One coded concept. `system` is a FHIR code-system URI."""

    system: str
    code: str
    display: str

    @property
    def proto(self) -> common_pb2.Code:
        return common_pb2.Code(system=self.system, code=self.code, display=self.display)

    @property
    def scheme(self) -> str:
        """DICOM coding scheme designator."""
        return DICOM_SCHEME[self.system]

    def matches(self, code: common_pb2.Code) -> bool:
        """Same system and code; the display text does not matter."""
        return (code.system, code.code) == (self.system, self.code)


# Standardised uptake value by body weight and by lean body mass.
SUV_MAX = Concept(OSLER_MEASUREMENT, "suv-max", "SUVmax (body weight)")
SUV_PEAK = Concept(OSLER_MEASUREMENT, "suv-peak", "SUVpeak (body weight, 1 cm3 sphere)")
SUV_MEAN = Concept(OSLER_MEASUREMENT, "suv-mean", "SUVmean (body weight)")
SUV_SD = Concept(OSLER_MEASUREMENT, "suv-sd", "SUV standard deviation (body weight)")
SUL_PEAK = Concept(OSLER_MEASUREMENT, "sul-peak", "SULpeak (lean body mass, 1 cm3 sphere)")
SUL_MEAN = Concept(OSLER_MEASUREMENT, "sul-mean", "SULmean (lean body mass)")
SUL_SD = Concept(OSLER_MEASUREMENT, "sul-sd", "SUL standard deviation (lean body mass)")

METABOLIC_VOLUME = Concept(DCM, "126032", "Metabolic Volume")
TOTAL_LESION_GLYCOLYSIS = Concept(DCM, "126033", "Total Lesion Glycolysis")
VOLUME = Concept(SCT, "118565006", "Volume")
LONG_AXIS = Concept(SCT, "103339001", "Long axis")
SHORT_AXIS = Concept(SCT, "103340004", "Short axis")
MEAN_ATTENUATION = Concept(DCM, "112031", "Attenuation Coefficient")

SUV_BODY_WEIGHT = Concept(DCM, "126401", "SUVbw")
SUV_LEAN_JANMAHASATIAN = Concept(DCM, "126405", "SUVlbm(Janma)")
PEAK_VALUE_WITHIN_ROI = Concept(DCM, "126031", "Peak Value Within ROI")
MAXIMUM = Concept(SCT, "56851009", "Maximum")
MEAN = Concept(SCT, "373098007", "Mean")
STANDARD_DEVIATION = Concept(SCT, "386136009", "Standard Deviation")

#: How a measurement is written in a DICOM SR: concept name, and derivation modifier.
SR_FORM: dict[Concept, tuple[Concept, Concept | None]] = {
    SUV_MAX: (SUV_BODY_WEIGHT, MAXIMUM),
    SUV_PEAK: (SUV_BODY_WEIGHT, PEAK_VALUE_WITHIN_ROI),
    SUV_MEAN: (SUV_BODY_WEIGHT, MEAN),
    SUV_SD: (SUV_BODY_WEIGHT, STANDARD_DEVIATION),
    SUL_PEAK: (SUV_LEAN_JANMAHASATIAN, PEAK_VALUE_WITHIN_ROI),
    SUL_MEAN: (SUV_LEAN_JANMAHASATIAN, MEAN),
    SUL_SD: (SUV_LEAN_JANMAHASATIAN, STANDARD_DEVIATION),
    MEAN_ATTENUATION: (MEAN_ATTENUATION, MEAN),
}

ARTIFICIAL_INTELLIGENCE = Concept(DCM, "123110", "Artificial Intelligence")
HISTOGRAM_ANALYSIS = Concept(DCM, "123105", "Histogram Analysis")

LESION = Concept(SCT, "52988006", "Lesion")
NEOPLASM = Concept(SCT, "108369006", "Neoplasm")
HIPPOCAMPUS = Concept(SCT, "5366008", "Hippocampus")
HIPPOCAMPUS_ANTERIOR = Concept(OSLER_STRUCTURE, "hippocampus-anterior", "Anterior part of hippocampus")
HIPPOCAMPUS_POSTERIOR = Concept(OSLER_STRUCTURE, "hippocampus-posterior", "Posterior part of hippocampus")
LIVER = Concept(SCT, "10200004", "Liver")
AORTA = Concept(SCT, "15825003", "Aorta")
ORGAN = Concept(SCT, "91772007", "Organ")
MORPHOLOGICALLY_ABNORMAL_STRUCTURE = Concept(SCT, "49755003", "Morphologically Abnormal Structure")
ANATOMICAL_STRUCTURE = Concept(SCT, "91723000", "Anatomical Structure")

# UCUM units of the measurements above, SUV units as in PS3.16 CID 85.
UNIT_SUV_BW = "g/ml{SUVbw}"
UNIT_SUV_LBM = "g/ml{SUVlbm(Janma)}"
UNIT_MM = "mm"
UNIT_MM3 = "mm3"
UNIT_ML = "mL"
UNIT_G = "g"
UNIT_HU = "[hnsf'U]"

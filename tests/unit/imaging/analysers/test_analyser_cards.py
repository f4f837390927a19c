"""Cards, codes and registry: what every analyser must say about itself."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
from pydicom.sr._concepts_dict import concepts as dicom_concepts

from services.clinical.codes import DCM, IBSI, LOINC, NCIT, SCT, Concept
from services.clinical.units import normalise
from services.imaging.analysers import registry
from services.imaging.analysers.cards import Card, read_card
from services.imaging.analysers.radiomics import concept_of, identifiers, mirp_settings, standard_name, unit_of
from services.platform.errors import RefusedError

#: pydicom's dictionary of DICOM PS3.16, an independent copy of the codes.
DESIGNATORS = {DCM: "DCM", SCT: "SCT", LOINC: "LN", IBSI: "IBSI", NCIT: "NCIt"}


#: Analysers of a series over time.
OVER_TIME = {"ct_perfusion", "cardiac_function", "flow_4d"}


def known_meanings(concept: Concept) -> set[str]:
    table: dict[str, Any] = dicom_concepts[DESIGNATORS[concept.system]]
    return {str(codes[concept.code][0]).lower() for codes in table.values() if concept.code in codes}


def every_concept() -> list[Concept]:
    return [
        concept
        for card in registry.cards()
        for concept in (*(measure.concept for measure in card.measures.values()), *card.concepts.values())
    ]


def test_every_standard_code_is_in_the_standard_with_its_meaning() -> None:
    checked = [concept for concept in every_concept() if concept.system in DESIGNATORS]
    assert len(checked) >= 20
    for concept in checked:
        assert concept.display.lower() in known_meanings(concept), concept


def test_ibsi_identifiers_are_those_of_dicom_where_it_has_them() -> None:
    found = {stem: known_meanings(Concept(IBSI, code, name)) for stem, (code, name) in identifiers().items()}
    listed = {stem: names for stem, names in found.items() if names}
    assert len(listed) >= 140
    for stem, names in listed.items():
        assert identifiers()[stem][1].lower() in names, stem


@pytest.mark.parametrize("card", registry.cards(), ids=lambda card: card.name)
def test_cards_are_complete(card: Card) -> None:
    assert card.sources
    assert card.limits
    assert card.intended_use
    assert any(role.required for role in card.inputs.values())
    assert any(role.over_time for role in card.inputs.values()) is (card.name in OVER_TIME)
    for measure in card.measures.values():
        assert measure.uncertainty, measure.concept
        assert normalise(measure.unit)


def test_a_card_without_limits_is_no_card() -> None:
    raw = {"title": "t", "version": 1, "what": "w", "intended_use": "u", "sources": ["s"], "limits": [], "inputs": {}}
    with pytest.raises(ValueError, match="limits"):
        read_card("x", raw)


def test_registry_refuses_what_it_does_not_know() -> None:
    with pytest.raises(RefusedError) as refused:
        registry.run("phrenology", {})
    assert refused.value.reason == "analysers.unknown"
    assert "vertebra" in refused.value.remedy
    with pytest.raises(RefusedError) as refused:
        registry.run("vertebra", {})
    assert (refused.value.reason, refused.value.missing) == ("vertebra.missing_input", ("body",))
    with pytest.raises(RefusedError) as refused:
        registry.card_named("ct_perfusion").settings({"tmaxs": 6})
    assert refused.value.reason == "ct_perfusion.unknown_option"


def test_radiomics_says_how_to_install_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_mirp(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "mirp":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_mirp)
    import numpy as np

    from services.imaging.analysers.contract import Image

    volume = Image(np.ones((4, 4, 4)), np.eye(4))
    with pytest.raises(RefusedError) as refused:
        registry.run("radiomics", {"image": volume, "mask": volume})
    assert refused.value.reason == "radiomics.not_installed"
    assert "osler[radiomics]" in refused.value.remedy


def test_radiomics_names_and_settings() -> None:
    assert standard_name("cm_joint_max_d1_2.5d_v_mrg_fbn_n32") == "cm_joint_max_2_5D_comb"
    assert standard_name("ngl_dc_energy_d1_a0.0_3d_fbs_w25.0") == "ngl_dc_energy_3D"
    assert standard_name("rlm_sre_2d_s_mrg_fbs_w25") == "rlm_sre_2D_comb"
    assert concept_of("stat_mean") == Concept(IBSI, "Q4LE", identifiers()["stat_mean"][1])
    assert concept_of("image_voxel_size_x") is None
    assert (unit_of("stat_mean", "[hnsf'U]"), unit_of("stat_skew", "[hnsf'U]")) == ("[hnsf'U]", "1")
    card = registry.card_named("radiomics")
    chosen = mirp_settings(card.settings({"spacing_mm": 2, "lowest": -500, "highest": 400}), "[hnsf'U]")
    assert chosen["resegmentation_intensity_range"] == [-500, 400]
    assert (chosen["new_spacing"], chosen["base_discretisation_method"]) == (2, "fixed_bin_size")
    with pytest.raises(RefusedError, match="both a width"):
        mirp_settings(card.settings({"bin_width": 25, "bin_count": 32}), "1")

"""Rules over latents: what claims compare, and that gates open where rules say a name."""

from dataclasses import replace

import pytest
import torch

from optrode.claims import Line, Measured
from optrode.control.sae import SAE
from optrode.study.kit import deduction
from optrode.study.kit.deduction import N_NAMES
from optrode.study.kit.detecting import N_PROPOSITIONS, Detector
from optrode.study.papers import activation_reasoning as study
from optrode.study.papers.activation_reasoning import ARMS, HOPS, SITE, STEERED, STUDY
from optrode.study.papers.activation_reasoning_figures import LEFT
from optrode.study.study import Outcome, Setting


def test_claims_compare_rules_with_their_controls():
    flat, falling = dict.fromkeys(HOPS, 0.9), {k: 1.0 if k == 1 else 0.1 for k in HOPS}
    by_arm = dict.fromkeys(ARMS, falling) | {"rules": flat}
    found = study._of_hops(by_arm, {"rules": flat, "alone": falling})
    assert found["L1"] == Measured(0.9, 0.1) and found["L2"] == Measured(0.0, 0.9)
    for key in ("L3", "L4"):
        assert found[key].value == pytest.approx(0.8) and found[key].control == 0
    assert found["L6"].value == pytest.approx(0.9) and found["L6"].control == pytest.approx(0.1)
    assert set(found) | {"L5", "L7", "L8", "L9"} == {claim.key for claim in STUDY.claims}


def test_there_is_a_gate_for_each_name_that_its_rules_open():
    lab = study._Lab(Setting(3, "quick"))
    vars(lab)["model"] = deduction.network(3)
    generator = torch.Generator().manual_seed(0)
    w_enc = torch.randn(64, N_PROPOSITIONS, generator=generator)
    sae = SAE(SITE, w_enc, torch.zeros(N_PROPOSITIONS), w_enc.T.clone(), torch.zeros(64), "topk", k=4)
    ever = torch.full((N_PROPOSITIONS,), -1e6)
    vars(lab)["found"] = Detector(sae, torch.arange(N_PROPOSITIONS), ever)
    vars(lab)["directions"] = torch.randn(N_NAMES, 64, generator=generator)
    held = lab.steering(lab.found, lab.world)
    assert len(held) == N_NAMES and {str(gate.site) for gate in held} == {STEERED}
    for gate, name in zip(held, range(N_NAMES), strict=True):
        assert all(text in str(gate.openness) for text in deduction.rule_texts(lab.world, name))
    vars(lab)["arms"] = {"rules": held[:2]}
    assert lab.open_share(deduction.idle(8, generator)) == 1
    vars(lab)["arms"] = {"rules": lab.steering(Detector(sae, torch.arange(N_PROPOSITIONS), -ever), lab.world)[:2]}
    assert lab.open_share(deduction.idle(8, generator)) == 0
    off = lab.strengthening(lab.found)
    norm = float(lab.directions.norm(dim=1).median())
    assert all(float(gate.actuator.vector.norm()) == pytest.approx(norm, rel=1e-4) for gate in off)


def outcome(seed, share):
    names = (*ARMS, *(f"{arm}, other words" for arm in LEFT))
    lines = {name: Line(name, (1.0, 5.0), (0.9, share)) for name in names}
    measured = {claim.key: Measured(0.5, 0.25) for claim in STUDY.claims} | {"L1": Measured(share, 0.2)}
    return Outcome(measured, lines, random_seed=seed)


def test_titles_say_the_medians():
    figures = STUDY.figures([outcome(0, 0.7), outcome(1, 0.9), outcome(2, 0.8)])
    assert figures.charts[0].title.startswith("Five steps away, 80%")


def test_titles_can_be_made_of_a_seed_that_measured_nothing():
    one = outcome(0, 0.7)
    nothing = dict.fromkeys(one.measured, Measured(None, None))
    assert STUDY.figures([replace(one, measured=nothing)]).charts

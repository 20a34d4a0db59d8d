"""The headline says what the records say: also when a proof fails."""

from dataclasses import replace

import pytest
import samples

from optrode.errors import BadOption
from optrode.reports.parts import sort_parts
from optrode.reports.words import headline, interval, number, short


def said(*parts):
    return headline(sort_parts(parts))


def test_headline_of_a_proof_that_holds():
    lead = said(samples.circuit(), samples.proof())
    assert lead.status == "holds"
    assert lead.sentence == (
        "20 of 300 nodes (14 heads, 6 MLPs) keep 0.86 [0.81, 0.90] of indirect object identification in smollm2; "
        "the best of 20 random circuits of that size keeps 0.05."
    )
    assert [check.is_passed for check in lead.checks] == [True, True, None, None]
    assert "its interval reaches below it" in lead.checks[0].text


def test_headline_of_a_proof_below_its_target():
    lead = said(samples.circuit(), samples.proof(0.61))
    assert lead.status == "fails"
    assert lead.sentence.startswith("The circuit does not hold: 20 of 300 nodes")
    assert "keep only 0.61 [0.56, 0.65]" in lead.sentence and "short of the target of 0.85" in lead.sentence
    assert lead.checks[0].is_passed is False and lead.checks[1].is_passed is True


def test_headline_of_a_proof_not_above_every_random_circuit():
    lead = said(samples.circuit(), samples.proof(0.86, best_random=0.9))
    assert lead.status == "fails"
    assert "1 of 20 random circuits of that size keeps as much or more (best 0.90)" in lead.sentence
    assert "target" not in lead.sentence


def test_a_random_circuit_that_does_as_well_is_no_success():
    assert said(samples.circuit(), samples.proof(0.86, best_random=0.86)).status == "fails"


def test_undefined_faithfulness_fails():
    lead = said(samples.circuit(), replace(samples.proof(), faithfulness=float("nan")))
    assert lead.status == "fails" and "undefined" in lead.sentence


def test_without_random_circuits_nothing_is_claimed():
    lead = said(samples.circuit(), replace(samples.proof(), random=()))
    assert lead.status == "open" and "chance is not ruled out" in lead.sentence


def test_proof_alone_has_no_target_to_reach():
    lead = said(samples.proof(0.4))
    assert lead.status == "holds" and lead.sentence.startswith("A circuit of 20 nodes keeps 0.40")
    assert lead.checks[0].is_passed is None


def test_circuit_alone_is_a_hypothesis():
    assert said(samples.circuit()).sentence.endswith("no proof is on this page, so the circuit is a hypothesis.")


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (samples.task(), "the model is right on 94% of the clean prompts"),
        (replace(samples.task(), ability=None), "has not been measured"),
        (samples.residual_grid(), "The strongest of 420 cells, blocks."),
        (samples.scores(), "Of 300 nodes, MLP 0 is the strongest"),
        (samples.head_scores(), "Head 8.2 of smollm2 has the highest score"),
    ],
)
def test_headline_of_one_record(part, words):
    lead = said(part)
    assert lead.status == "open" and words in lead.sentence


def test_numbers_as_people_write_them():
    assert number(-0.004) == "0.00" and number(-1.25, 1) == "−1.2" and number(float("inf")) == "undefined"
    assert short(-0.00002) == "−2.0e−05" and short(0.0) == "0" and short(3.14159) == "3.14"
    assert [short(value) for value in (999.4, 999.6, -12345.6, 2e5)] == ["999", "1,000", "−12,346", "2.0e+05"]
    assert interval(samples.Interval(-0.5, 0.25)) == "[−0.50, 0.25]"


def test_records_that_do_not_belong_together_are_refused():
    with pytest.raises(BadOption, match="of task 'ioi', the proof of 'induction'"):
        sort_parts((samples.circuit(), replace(samples.proof(), task="induction")))
    with pytest.raises(BadOption, match="20 nodes, the proof is of 19"):
        sort_parts((samples.circuit(), replace(samples.proof(), size=19)))
    stranger = replace(samples.proof().minimality[0], node="blocks.7.mlp_out")
    with pytest.raises(BadOption, match="blocks.7.mlp_out"):
        sort_parts((samples.circuit(), replace(samples.proof(), minimality=(stranger,))))
    with pytest.raises(BadOption, match="2 Proof records"):
        sort_parts((samples.proof(), samples.proof()))
    with pytest.raises(BadOption, match="no record"):
        sort_parts(())
    with pytest.raises(BadOption, match="str is not a record"):
        sort_parts(("ioi",))

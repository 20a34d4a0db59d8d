"""The embedded language model: what is known of it, and the acceptance of the demo's circuit."""

from pathlib import Path

import pytest
import torch

import optrode as op
from optrode.circuit.look import head_scores
from optrode.trial.run import Bench
from optrode.trial.trial import Trial

pytestmark = pytest.mark.slow

JOHN = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def model():
    return op.load("smollm2")


def test_it_answers_mary(model):
    assert model.generate(JOHN, max_new_tokens=1) == " Mary"
    assert model.tokenizer.eos_token_id == 2 == model.module.generation_config.eos_token_id


def test_logits_are_those_of_the_plain_module_with_every_site_recorded(model):
    with torch.no_grad():
        plain = model(JOHN).logits
    sites = [str(name) for name in model.site_names() if name.kind not in ("attn.scores", "attn.pattern")]
    assert torch.equal(op.record(model, JOHN, sites, keep_logits=True).logits, plain)


def test_position_zero_is_an_attention_sink_of_great_norm_from_layer_12_on(model):
    norms = op.record(model, JOHN, "blocks.12:28.resid_post[pos=0]").stack("resid_post").norm(dim=-1)
    assert norms.min() > 15_000 and norms.max() < 35_000


class TestInduction:
    """Twenty random tokens, repeated. Reference: a pilot that hooked the input of o_proj."""

    PILOT = {"1.4": 6.6, "16.0": 4.9, "1.5": 4.7, "2.2": 3.6, "1.3": 3.4, "18.6": 1.9}

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, model):
        return Bench(model, op.tasks.induction(model, n=32, random_seed=0))

    def test_the_loss_is_that_of_the_pilot(self, bench):
        loss = -sum(bench.base("clean")) / len(bench.task)
        assert loss == pytest.approx(3.85, abs=0.5)

    def test_exact_zero_ablation_agrees_with_the_pilot(self, bench):
        base = sum(bench.base("clean")) / len(bench.task)
        effects = {}
        for key in (*self.PILOT, "17.3", "17.4", "19.2", "20.0", "23.3"):
            layer, head = key.split(".")
            gated = bench.run(Trial((op.zero(f"blocks.{layer}.attn.z[head={head}]"),), "clean", "logprob"))
            effects[key] = base - sum(gated) / len(gated)
        assert effects["16.0"] == pytest.approx(4.9, rel=0.15) and effects["18.6"] == pytest.approx(1.9, rel=0.15)
        # the heads of layers 1 and 2 vary much more between draws of tokens (see docs/results.md)
        assert all(effects[key] > 1.0 for key in self.PILOT)
        late = {key: effect for key, effect in effects.items() if int(key.split(".")[0]) >= 17}
        assert max(late, key=late.get) == "18.6"

    def test_patterns_name_the_induction_and_previous_token_heads(self, model, bench):
        scores = head_scores(model, bench.task, bench=bench)
        by_kind = dict(zip(scores.kinds, scores.values, strict=True))
        ranked = {
            kind: sorted(((v, layer, head) for layer, row in enumerate(rows) for head, v in enumerate(row)), reverse=True)
            for kind, rows in by_kind.items()
        }
        assert ranked["induction"][0][1:] == (18, 6)
        assert {(layer, head) for _, layer, head in ranked["induction"][1:3]} == {(17, 3), (17, 4)}
        assert ranked["induction"][0][0] == pytest.approx(0.9, abs=0.05)
        assert {(layer, head) for _, layer, head in ranked["previous token"][:2]} == {(16, 0), (11, 1)}
        assert by_kind["previous token"][16][0] == pytest.approx(0.9, abs=0.05)


class TestIndirectObject:
    @pytest.fixture(scope="class")
    @classmethod
    def found(cls, model):
        circuit = op.find(model, op.tasks.ioi(model, n=16, random_seed=0))
        return circuit, op.prove(model, op.tasks.ioi(model, n=16, random_seed=1), circuit)

    def test_it_holds_the_heads_that_the_literature_expects(self, found):
        circuit, _ = found
        roles = {head.role for head in circuit.heads}
        assert "name mover" in roles and "S-inhibition" in roles and roles & {"induction", "duplicate token"}

    def test_it_is_faithful_on_other_prompts_and_beats_every_random_circuit(self, found):
        circuit, proof = found
        assert proof.faithfulness >= 0.8 and len(proof.random) == 20 and max(proof.random) < proof.faithfulness
        assert abs(proof.completeness) < 0.2 and circuit.size < circuit.n_all / 2


@pytest.mark.parametrize("name", op.tasks.NAMES)
def test_it_can_do_every_task_and_no_pair_is_degenerate(model, name):
    task = op.tasks.find_task(name)(model, n=8, random_seed=3)
    assert len(task) == 8 and task.ability.clean > task.ability.corrupt


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    example = (Path(__file__).parents[2] / "examples" / "ten_lines.py").read_text()
    monkeypatch.chdir(tmp_path)
    exec(example, {"__name__": "__main__"})
    assert "nodes keep" in capsys.readouterr().out and (tmp_path / "runs" / "example" / "report.html").is_file()

"""Information-flow routes against the definition written out, and what their parts add up to."""

import numpy as np
import pytest
import torch

import optrode as op
from optrode.circuit.edge.routes import _Parts, importance, route_scores
from optrode.circuit.edge.select import select
from optrode.circuit.edge.senders import Plain, noted, nothing, watching
from optrode.circuit.edge.wiring import wiring_of
from optrode.errors import BadOption
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.site.tap import tapped
from optrode.trial.prompts import Task
from tests.unit.trial.test_run import make_task

WRITERS = ("norm", "Norm", ".ln_", "o_proj", "attn.c_proj", "attention.dense", "attention.output.dense")
"""Modules whose bias stands in the stream, and which no sender writes."""

FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2", "olmo2", "bloom", "bert"]


def make_model(family="gpt2"):
    return from_source(tiny(family).double())


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ([[4.0, 0.0], [0.0, 0.0]], [1.0, 0.0]),
        ([[3.0, 0.0], [0.0, 1.0]], [0.75, 0.25]),
        ([[3.0, 2.0], [-1.0, 0.0]], [1.0, 0.0]),  # y = (2, 2): 4 - 1 = 3 for the first, 4 - 5 < 0 for the second
        ([[2.0, 0.0], [-2.0, 0.0]], [0.0, 0.0]),  # the stream is empty: nobody is close to it
    ],
)
def test_importance_is_how_much_closer_to_the_stream_than_nothing(parts, wanted):
    one = torch.tensor(parts, dtype=torch.float64)
    found = importance(one[None, :, None], one.sum(0)[None, None])
    assert found[0, :, 0].tolist() == pytest.approx(wanted)


def test_a_clip_leaves_something_to_everyone():
    one = torch.tensor([[3.0, 2.0], [-1.0, 0.0]], dtype=torch.float64)
    found = importance(one[None, :, None], one.sum(0)[None, None], 1e-5)
    assert found[0, 1, 0].item() == pytest.approx(1e-5 / (3 + 1e-5))


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_add_up_to_the_stream_where_no_bias_is_added(family):
    model = make_model(family)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if name.endswith("bias") and any(part in name for part in WRITERS):
                parameter.zero_()
    wiring, plain, sums = wiring_of(model), Plain(nothing()), []
    taps = watching(wiring, plain)
    taps += [(site, noted(sums)) for layer in range(3) for site in wiring.stream_sums(layer)]
    with torch.no_grad(), tapped(model, taps):
        model(input_ids=torch.arange(12).reshape(2, 6))
    with torch.no_grad():
        parts = _Parts(wiring, plain, sums)
        for layer in range(3):
            assert torch.allclose(parts.before(layer).sum(1), plain.attn_in[layer], atol=1e-5)  # RMS norms round
            assert torch.allclose(parts.within(layer).sum(1), plain.mlp_in[layer], atol=1e-5)
        assert torch.allclose(parts.before(3).sum(1), plain.end, atol=1e-5)


def naive_gpt2(model, pair):
    """{receiver: [sender]} by the definition, from recordings of one prompt."""
    kinds = ("attn.result", "mlp_out", "attn_in", "mlp_in", "resid_pre", "resid_post")
    found = op.record(model, [list(pair.clean)], [f"blocks.*.{kind}" for kind in kinds])
    every = {"embed": found["resid_pre", 0][0]}
    scores = {}
    for layer in range(3):
        scores[f"a{layer}"] = shares(every, found[f"blocks.{layer}.attn_in"][0], range(len(pair.clean)))
        every |= {f"a{layer}.h{h}": found[f"blocks.{layer}.attn.result"][0, :, h] for h in range(4)}
        scores[f"m{layer}"] = shares(every, found[f"blocks.{layer}.mlp_in"][0], range(len(pair.clean)))
        every[f"m{layer}"] = found[f"blocks.{layer}.mlp_out"][0]
    return scores | {"logits": shares(every, found["blocks.2.resid_post"][0], [len(pair.clean) - 1])}


def shares(parts, stream, positions):
    total = dict.fromkeys(parts, 0.0)
    for pos in positions:
        y = stream[pos].abs().sum().item()
        closer = {name: max(0.0, y - (part[pos] - stream[pos]).abs().sum().item()) for name, part in parts.items()}
        for name, value in closer.items():
            total[name] += value / sum(closer.values()) / len(positions)
    return total


def test_scores_are_the_written_definition():
    model, task = make_model(), make_task((6, 8))
    found = route_scores(model, task)
    for row, pair in enumerate(task.pairs):
        wanted = naive_gpt2(model, pair)
        for edge, (receiver, sender) in enumerate(found.graph.ends):
            name = found.graph.receivers[receiver]
            key = name.split(".")[0] if name.endswith((".q", ".k", ".v")) else name
            assert -found.per_prompt[row, edge] == pytest.approx(wanted[key][found.graph.senders[sender]], abs=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_importances_of_every_receiver_add_up_to_one_in_one_pass(family):
    found = route_scores(make_model(family), make_task((6, 6)))
    summed = found.graph.matrix(-found.per_prompt).sum(-1)
    assert np.allclose(summed, 1) and (found.per_prompt <= 0).all() and found.method == "ifr"
    assert found.provenance.n_passes == 1 and "greedy" in found.notes[0]


def test_scores_do_not_depend_on_the_other_prompts():
    model, task = make_model("llama"), make_task((6, 6, 8))
    together = route_scores(model, task).per_prompt
    alone = [route_scores(model, Task("t", "", "logit_gap", (pair,))).per_prompt[0] for pair in task.pairs]
    assert np.allclose(together, alone, atol=1e-10)


def test_positions_add_up_and_the_logits_are_read_at_the_last():
    found = route_scores(make_model(), make_task((6, 6)), by_pos=True)
    assert found.per_pos.shape == (found.graph.n_edges, 6) and np.allclose(found.per_pos.sum(1), found.values)
    into_logits = [edge for edge in range(found.graph.n_edges) if found.graph.name(edge).endswith("logits")]
    assert (found.per_pos[into_logits, :5] == 0).all() and (found.per_pos[into_logits, 5] < 0).any()


def test_every_query_head_can_have_a_k_of_its_own():
    grouped, wide = (route_scores(make_model("llama"), make_task((6,)), per_query_head=own) for own in (False, True))
    assert wide.graph.n_kv == 6 and grouped.graph.n_kv == 2
    at = [wide.graph.edge("a0.h3 -> a1.h5.k"), grouped.graph.edge("a0.h3 -> a1.g1.k")]
    assert wide.values[at[0]] == pytest.approx(grouped.values[at[1]], abs=1e-12)


def test_a_greedy_circuit_is_connected_to_the_logits():
    found = route_scores(make_model(), make_task((6, 6)))
    chosen = select(found, 5, "greedy")
    receivers = {found.graph.receivers[receiver] for receiver, _ in found.graph.ends[chosen]}
    assert chosen.sum() == 5 and "logits" in receivers


def test_bad_input_is_named():
    model = make_model()
    with pytest.raises(BadOption, match="clip=-1"):
        route_scores(model, make_task((6,)), clip=-1.0)
    with pytest.raises(BadOption, match="differ in length"):
        route_scores(model, make_task((6, 8)), by_pos=True)
    with pytest.raises(BadOption, match="Nearest: resample"):
        route_scores(model, make_task((6,)), ablation="resampled")

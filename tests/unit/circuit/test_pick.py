"""Patterns become nodes, nodes become sites, and controls are as many others of the same kind."""

from optrode.circuit.nodes import all_nodes
from optrode.circuit.pick import by_site, draw_like, every_node, pick, whole_node
from optrode.model.source import from_source
from optrode.model.tiny import tiny


def make_model():
    return from_source(tiny("gpt2"))


def names(nodes):
    return [str(node) for node in nodes]


def test_patterns_stand_for_single_heads_and_mlps_each_once():
    found = pick(make_model(), ["blocks.1:.attn.z[head=-1|0]", "blocks.2.attn.z[head=0]", "blocks.0.mlp_out[pos=2:4]"])
    assert names(found) == [
        "blocks.1.attn.z[head=3]", "blocks.1.attn.z[head=0]", "blocks.2.attn.z[head=3]", "blocks.2.attn.z[head=0]",
        "blocks.0.mlp_out[pos=2:4]",
    ]  # fmt: skip
    assert names(pick(make_model(), ["blocks.*.attn.z", "blocks.*.mlp_out"])) != list(all_nodes(make_model()))
    assert names(every_node(make_model())) == list(all_nodes(make_model()))


def test_heads_of_one_layer_and_the_same_positions_share_a_site():
    found = pick(make_model(), ["blocks.1.attn.z[head=2|0, pos=-1]", "blocks.1.attn.z[head=3]", "blocks.1.mlp_out"])
    assert names(by_site(found)) == ["blocks.1.attn.z[head=0|2, pos=-1]", "blocks.1.attn.z[head=3]", "blocks.1.mlp_out"]


def test_controls_are_other_nodes_as_many_of_each_kind_at_the_same_positions():
    model = make_model()
    chosen = pick(model, ["blocks.1.attn.z[head=2|0, pos=-1]", "blocks.1.attn.z[head=0, pos=3]", "blocks.1.mlp_out"])
    drawn = draw_like(chosen, every_node(model), 20, 0)
    own = set(map(whole_node, chosen))
    for control in drawn:
        assert [node.kind for node in control] == ["attn.z"] * 3 + ["mlp_out"]
        assert [str(node.index("pos")) for node in control] == ["-1", "-1", "3", "None"]
        assert whole_node(control[1]) == whole_node(control[2]) != whole_node(control[0])
        assert not own & set(map(whole_node, control))
    assert drawn == draw_like(chosen, every_node(model), 20, 0) != draw_like(chosen, every_node(model), 20, 1)


def test_controls_come_from_all_nodes_where_too_few_others_are_left():
    model = make_model()
    most = pick(model, ["blocks.*.mlp_out"])
    (control,) = draw_like(most, every_node(model), 1, 0)
    assert set(control) == set(most)

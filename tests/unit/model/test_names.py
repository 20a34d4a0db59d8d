"""Site names: what is understood, what is printed, and what each mistake is answered with."""

import pytest

from optrode.errors import BadName
from optrode.model.names import ALL, Index, SiteName, parse


@pytest.mark.parametrize(
    ("text", "kind", "layers", "select"),
    [
        ("embed", "embed", None, {}),
        ("blocks.3.attn.z[head=6]", "attn.z", "3", {"head": "6"}),
        ("blocks.*.resid_pre", "resid_pre", "*", {}),
        ("blocks.-1.mlp.post[pos=-1, feature=10:20]", "mlp.post", "-1", {"pos": "-1", "feature": "10:20"}),
        ("blocks.2|5|8.attn.q[head=1|4]", "attn.q", "2|5|8", {"head": "1|4"}),
        ("blocks.3:7.ln1[pos=:3]", "ln1", "3:7", {"pos": ":3"}),
        ("module:encoder.layer.3.output.out", "module:encoder.layer.3.output.out", None, {}),
        ("module:rnn.in[pos=2]", "module:rnn.in", None, {"pos": "2"}),
    ],
)
def test_parts_of_a_name(text, kind, layers, select):
    name = parse(text)
    assert (name.kind, name.layers and str(name.layers)) == (kind, layers)
    assert {axis: str(index) for axis, index in name.select} == select
    assert str(name) == text


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("blocks.0.attn.hook_z", "blocks.0.attn.z"),
        ("blocks.0.hook_resid_pre", "blocks.0.resid_pre"),
        ("hook_embed", "embed"),
        (" blocks.0.attn.z [ pos = 1 , head = 2 ] ", "blocks.0.attn.z[head=2, pos=1]"),
        ("blocks.0.attn.z[head=*]", "blocks.0.attn.z[head=*]"),
        ("blocks.:.ln1", "blocks.*.ln1"),
        ("blocks.007.ln1", "blocks.7.ln1"),
    ],
)
def test_other_spellings_print_canonically(typed, printed):
    assert str(parse(typed)) == printed


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("blocks.0.attn.z[head=6", "brackets"),
        ("blocks.0.attn.z]head=6[", "brackets"),
        ("blocks.x.attn.z", "'x'"),
        ("blocks.0.attn.z[hed=6]", "head"),
        ("blocks.0.attn.z[head]", "head"),
        ("blocks.0.attn.z[head=1.5]", "1.5"),
        ("blocks.0.attn.z[head=1, head=2]", "head=1|4"),
        ("blocks.0", "blocks.0"),
        ("blocks..attn.z", "attn.z"),
        ("Embed", "Embed"),
        ("module:encoder", "module:encoder.out"),
        ("", "empty"),
        ("blocks.0.attn.z[]", "selector"),
    ],
)
def test_a_mistake_is_named(text, names):
    with pytest.raises(BadName) as error:
        parse(text)
    assert names in str(error.value)


def test_an_index_resolves_in_the_order_given_without_repeats_or_strangers():
    assert parse("blocks.5|0:2|-1|1|99.ln1").layers.resolve(6) == (5, 0, 1)
    assert ALL.resolve(3) == (0, 1, 2)
    assert Index((-4,)).resolve(3) == ()
    assert Index(((None, -1),)).resolve(3) == (0, 1)


def test_fixing_a_layer_and_selecting_further():
    name = parse("blocks.*.attn.z[pos=2]").at(layer=3, head=6)
    assert str(name) == "blocks.3.attn.z[head=6, pos=2]"
    assert str(name.whole) == name.path == "blocks.3.attn.z"
    assert name.index("head") == Index((6,)) and name.index("feature") is None
    assert name.layers.single == 3 and parse("blocks.*.ln1").layers.single is None
    assert parse("module:a.out").is_module and not SiteName("embed").is_module

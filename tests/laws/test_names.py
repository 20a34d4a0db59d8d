"""`parse` and `str` are inverses, and TransformerLens's spelling means the same site."""

from hypothesis import given
from hypothesis import strategies as st

from optrode.axes import SELECTABLE
from optrode.model.adapter import ORDER
from optrode.model.names import Index, SiteName, parse

# Strategies draw plain data and the tests build the names from it: the type checker that watches every constructor
# uses the random module, which a strategy must not.
ends = st.none() | st.integers(-99, 99)
parts = st.lists(st.integers(-99, 99) | st.tuples(ends, ends), min_size=1, max_size=3).map(tuple)
words = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda w: not w.startswith("hook_") and w != "blocks")
kinds = st.sampled_from(ORDER) | st.lists(words, min_size=1, max_size=3).map(".".join)
selects = st.dictionaries(st.sampled_from(SELECTABLE), parts, max_size=3)
paths = st.lists(st.from_regex(r"[A-Za-z_0-9]{1,8}", fullmatch=True), min_size=1, max_size=3).map(".".join)
modules = st.tuples(paths, st.sampled_from(["in", "out"])).map(lambda found: f"module:{found[0]}.{found[1]}")
family_names = st.tuples(kinds, st.none() | parts, selects)
names = family_names | st.tuples(modules, st.none(), selects)


def name_of(drawn) -> SiteName:
    kind, layers, select = drawn
    ordered = tuple((axis, Index(select[axis])) for axis in SELECTABLE if axis in select)
    return SiteName(kind, layers and Index(layers), ordered)


@given(names)
def test_a_printed_name_is_parsed_back(drawn):
    name = name_of(drawn)
    assert parse(str(name)) == name
    assert str(parse(str(name))) == str(name)


@given(family_names)
def test_a_leading_hook_in_the_last_part_is_dropped(drawn):
    name = name_of(drawn)
    head, _, last = name.kind.rpartition(".")
    aliased = SiteName(f"{head}.hook_{last}" if head else f"hook_{last}", name.layers, name.select)
    assert parse(str(aliased)) == name


@given(parts, st.integers(1, 50))
def test_an_index_resolves_to_what_python_would_take(drawn, size):
    expected = []
    for part in drawn:
        if isinstance(part, int):
            expected += [range(size)[part]] if -size <= part < size else []
        else:
            expected += list(range(size))[slice(*part)]
    assert list(Index(drawn).resolve(size)) == list(dict.fromkeys(expected))


@given(kinds, parts, selects, st.integers(0, 99), st.integers(-9, 99))
def test_fixing_a_layer_and_a_head_keeps_the_rest(kind, layers, select, layer, head):
    name = name_of((kind, layers, select))
    chosen = name.at(layer=layer, head=head)
    assert chosen.layers == Index((layer,)) and chosen.index("head") == Index((head,))
    assert [s for s in chosen.select if s[0] != "head"] == [s for s in name.select if s[0] != "head"]
    assert chosen.whole == name.at(layer=layer).whole

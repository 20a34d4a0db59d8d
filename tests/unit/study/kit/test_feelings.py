"""The grammar of feelings, and directions and circuits found and turned up in it."""

import pytest
import torch

from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.study.kit import feeling_circuits as circuits
from optrode.study.kit import feelings
from optrode.study.kit.feelings import N_FEELINGS, NEUTRAL, PROMPT, STORY

SITES = (*circuits.SITES, *circuits.STREAMS)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def world():
    return feelings.draw_world(3)


@pytest.fixture(scope="module")
def model():
    return feelings.network(1, n_layers=2, n_heads=4, d_model=16, d_mlp=20)


@pytest.fixture(scope="module")
def centred(model, world):
    return circuits.centred(circuits.grouped(model, world.parts["fit"][:4], SITES, random(), n_stories=2))


def told(world, feeling, n=200):
    rows = world.parts["test"][torch.randint(len(world.parts["test"]), (n,), generator=random(1))]
    return rows, feelings.stories(rows, torch.full((n,), feeling), random(2))


def test_wordings_are_a_law_and_neighbours_share():
    law = feelings.law()
    assert torch.allclose(law.sum(1), torch.ones(N_FEELINGS + 1))
    shared = ((law[:N_FEELINGS, None] > 0) & (law[None, :N_FEELINGS] > 0)).sum(-1)
    assert shared.diagonal().tolist() == [feelings.N_OWN + 2 * feelings.N_SHARED] * N_FEELINGS
    assert [int(shared[0, other]) for other in range(1, N_FEELINGS)] == [2, 0, 0, 0, 2]


def test_parts_are_apart_and_whole(world):
    pairs = [tuple(row) for part in world.parts.values() for row in part.tolist()]
    assert len(pairs) == len(set(pairs)) == feelings.N_PERSONS * feelings.N_DEEDS


@pytest.mark.parametrize("feeling", range(N_FEELINGS))
def test_stories_by_the_law_are_felt_and_well_told(world, feeling):
    rows, ids = told(world, feeling)
    assert ids.shape == (200, PROMPT + STORY)
    assert float((feelings.felt(ids[:, PROMPT:]) == feeling).float().mean()) > 0.9
    assert float(feelings.is_well_told(ids[:, PROMPT:], rows).float().mean()) > 0.9


def test_stories_of_none_are_of_any_feeling(world):
    found = feelings.felt(told(world, NEUTRAL)[1][:, PROMPT:])
    assert all(float((found == feeling).float().mean()) < 0.4 for feeling in range(N_FEELINGS))


def test_a_story_of_another_deed_is_not_well_told(world):
    rows, ids = told(world, 2)
    other = torch.stack([rows[:, 0], (rows[:, 1] + 1) % feelings.N_DEEDS], 1)
    assert float(feelings.is_well_told(ids[:, PROMPT:], other).float().mean()) < 0.1
    assert not bool(feelings.is_well_told(torch.full((3, STORY), feelings.WORDINGS), rows[:3]).any())


def test_a_story_without_wordings_is_of_no_feeling(world):
    rows, _ = told(world, 0, n=3)
    assert feelings.felt((feelings.EVENTS + rows[:, :1]).expand(3, STORY)).tolist() == [-1] * 3


def test_centring_takes_the_scenario_away():
    scenario, feeling = torch.randn(5, 1, 8, generator=random()), torch.randn(1, N_FEELINGS, 8, generator=random(1))
    found = circuits.centred({"blocks.0.resid_post": 100 * scenario + feeling})
    expected = (feeling - feeling.mean(1, keepdim=True))[0]
    assert torch.allclose(found.values["blocks.0.resid_post"], expected, atol=1e-4)
    grouped = {"blocks.0.resid_post": 100 * scenario + feeling}
    assert circuits.is_read(grouped, found, "blocks.0.resid_post") == 1.0


def test_what_heads_and_neurons_write_adds_up(model, centred):
    """With an importance of 1, scores of a sublayer add up to what it adds to the direction that it writes to."""
    ones = torch.ones(2, 2, N_FEELINGS)
    found = circuits.scores(model, centred, ones)
    for layer in range(2):
        middle, after = (f"blocks.{layer}.{stream}" for stream in circuits.STREAMS)
        grown = centred.values[after] - centred.values[middle]
        expected = (grown * centred.direction(after)).sum(-1)
        assert torch.allclose(found[f"blocks.{layer}.mlp.post"].sum(1), expected, atol=1e-5)


def test_importance_of_the_last_sublayer_is_one(model, centred, world):
    ids = feelings.stories(world.parts["fit"][:4], torch.full((4,), NEUTRAL), random())
    found = circuits.importance(model, ids, centred)
    assert torch.allclose(found[-1, 1], torch.ones(N_FEELINGS), atol=1e-3)


def test_circuits_have_their_size(model, centred):
    found = circuits.scores(model, centred, torch.ones(2, 2, N_FEELINGS))
    for parts in (circuits.selected(found, 3, 5), circuits.random_like(found, 3, 5, random())):
        for end, size in (("z", 3), ("post", 5)):
            counts = sum(mask.sum(1) for site, mask in parts.items() if site.endswith(end))
            assert counts.tolist() == [size] * N_FEELINGS


def everything(found):
    return {site: torch.ones_like(one, dtype=torch.bool) for site, one in found.items()}


def test_rows_get_their_own_feeling_from_the_end_of_the_prompt_on(model, centred, world):
    found = circuits.scores(model, centred, torch.ones(2, 2, N_FEELINGS))
    asked = torch.tensor([4, 1])
    started = feelings.prompts(world.parts["test"][:2], torch.full((2,), NEUTRAL))
    with torch.no_grad():
        plain = model(started).logits
        with gates(model, *circuits.turned_up(centred.values, everything(found), asked, 50.0)):
            both = model(started).logits
        for row, feeling in enumerate(asked):
            with gates(model, *circuits.turned_up(centred.values, everything(found), feeling[None], 50.0)):
                alone = model(started[row : row + 1]).logits
            assert torch.allclose(alone[0], both[row], atol=1e-4)
    assert torch.equal(both[:, : PROMPT - 1], plain[:, : PROMPT - 1])
    assert float((both[:, -1] - plain[:, -1]).abs().max()) > 1e-2


def test_parts_held_at_their_means_say_nothing_of_the_feeling(world):
    model = feelings.network(1, n_layers=1, n_heads=4, d_model=16, d_mlp=20)
    found = circuits.grouped(model, world.parts["fit"][:4], SITES, random(), n_stories=2)
    one = circuits.centred(found)
    parts = everything(circuits.scores(model, one, torch.ones(1, 2, N_FEELINGS)))
    rows = world.parts["test"][:1].expand(N_FEELINGS, -1)
    started = feelings.prompts(rows, torch.arange(N_FEELINGS))
    with torch.no_grad(), gates(model, *circuits.turned_off(one.middles, parts, 0)):
        held = model(started).logits[:, -1]
    assert torch.allclose(held, held[:1].expand_as(held), atol=1e-5)


def test_steering_adds_its_share_of_the_stream(model, centred, world):
    from optrode.site.recording import record

    started = feelings.prompts(world.parts["test"][:3], torch.full((3,), NEUTRAL))
    asked, site = torch.tensor([0, 5, 2]), "blocks.0.resid_post"
    plain = record(model, {"input_ids": started}, site)[site]
    with gates(model, *circuits.steered(centred, (0,), asked, 0.5)):
        moved = record(model, {"input_ids": started}, site)[site] - plain
    assert torch.allclose(moved[:, -1], 0.5 * centred.spread[site] * centred.direction(site)[asked], atol=1e-5)
    assert not bool(moved[:, :-1].any())


def test_stories_end_where_they_should(model: Model, world):
    rows = world.parts["test"][:3]
    story = feelings.tell(model, feelings.prompts(rows, torch.zeros(3, dtype=torch.long)), random())
    assert story.shape == (3, STORY)

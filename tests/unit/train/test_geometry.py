"""Weight geometry and masks on matrices known by hand, and checkpoints that do not fit together."""

import math

import pytest
import torch

from optrode.errors import BadOption
from optrode.nn.transformer import Spec, build
from optrode.train.geometry import geometry, geometry_of, principal_angles, spectral_shift, wedin_bound
from optrode.train.masks import (
    bf16_mask,
    jaccard,
    jaccard_by_chance,
    low_mask,
    overlap,
    principal_mask,
    random_rotation,
    rotated,
    sparsity,
    update_mask,
)

SPEC = Spec(n_layers=1, n_heads=2, d_model=8, vocab=11, n_ctx=6, d_mlp=16)


def diag(*numbers):
    return torch.diag(torch.tensor(numbers, dtype=torch.float64))


def states():
    before = build(SPEC, random_seed=1).state_dict()
    draw = torch.Generator().manual_seed(2)
    noise = {name: torch.randn(w.shape, generator=draw) for name, w in before.items()}
    after = {name: w + 0.01 * noise[name] * (noise[name] > 0.3) for name, w in before.items()}
    return before, after


def test_spectral_shift_by_hand():
    assert spectral_shift(diag(4.0, 3.0), diag(4.0, 3.5)) == pytest.approx(0.5 / 5)
    assert spectral_shift(diag(4.0, 3.0), diag(3.0, -4.0)) == pytest.approx(0.0)
    assert spectral_shift(diag(4.0, 3.0), 2 * diag(4.0, 3.0)) == pytest.approx(1.0)


def test_swapped_principal_directions_are_at_right_angles():
    before, after = diag(4.0, 3.0, 1.0), diag(4.0, 1.0, 3.0)
    assert principal_angles(before, after, 1).tolist() == pytest.approx([0.0])
    assert principal_angles(before, after, 2, "right").tolist() == pytest.approx([0.0, 90.0])
    assert principal_angles(before, after, 3).tolist() == pytest.approx([0.0] * 3)


def test_left_and_right_are_told_apart():
    angle = math.radians(30)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    before = diag(2.0, 1.0)
    assert principal_angles(before, turn @ before, 1, "left").tolist() == pytest.approx([30.0])
    assert principal_angles(before, turn @ before, 1, "right").tolist() == pytest.approx([0.0])
    assert principal_angles(before, before @ turn, 1, "left").tolist() == pytest.approx([0.0])
    assert principal_angles(before, before @ turn, 1, "right").tolist() == pytest.approx([30.0])


def test_wedin_by_hand():
    before, after = diag(3.0, 1.0), diag(3.0, 1.5)
    assert wedin_bound(before, after, 1) == pytest.approx(0.5 / 1.5)
    assert wedin_bound(before, after, 2) == pytest.approx(0.5)
    assert wedin_bound(diag(3.0, 2.0), diag(1.0, 3.5), 1) == 1.0


def test_update_mask_by_hand():
    before = torch.tensor([1.0, 1.0, 0.0, -2.0, 0.0])
    after = torch.tensor([1.0009, 1.0011, 1e-30, 2.0, 0.0])
    assert update_mask(before, after).tolist() == [False, True, True, True, False]
    assert sparsity(update_mask(before, after)) == pytest.approx(0.4)
    assert sparsity(update_mask(before, after, eta=0.01)) == pytest.approx(0.6)
    assert torch.equal(update_mask(before, after), update_mask(after, before))


def test_bfloat16_does_not_see_small_updates():
    before = torch.tensor([1.0, 1.0, 1.0, 0.0])
    after = torch.tensor([1.003, 1.005, 1.0078125, -0.0])
    assert bf16_mask(before, after).tolist() == [False, True, True, False]


def test_jaccard_by_hand_and_by_chance():
    a, b = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    assert jaccard(a, b) == pytest.approx(1 / 3)
    assert jaccard(a & ~a, b & ~b) == 1.0 and jaccard(a, ~a) == 0.0
    assert jaccard_by_chance(0.5, 0.5) == pytest.approx(1 / 3)
    assert jaccard_by_chance(0.6, 0.6) == pytest.approx(0.36 / 0.84)
    assert jaccard_by_chance(0.0, 0.3) == 0.0 and jaccard_by_chance(0.0, 0.0) == 1.0


def test_principal_weights_are_those_of_the_reconstruction_and_not_the_large_ones():
    block = torch.zeros(4, 4, dtype=torch.float64)
    block[:3, :3] = 1.0  # singular value 3
    block[3, 3] = 2.0    # larger than any other weight, but singular value 2
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[:3, :3] = True
    assert torch.equal(principal_mask(block, 1, 9 / 16), expected)
    assert principal_mask(block, 2, 1 / 16).nonzero().tolist() == [[3, 3]]
    assert low_mask(block, 6 / 16).sum() == 6 and not (low_mask(block, 6 / 16) & (block != 0)).any()


def test_ties_go_to_the_first_and_a_mask_is_never_empty():
    assert low_mask(torch.ones(2, 3), 0.5).tolist() == [[True, True, True], [False, False, False]]
    assert int(low_mask(torch.ones(2, 3), 0.01).sum()) == 1
    assert low_mask(torch.ones(2, 3), 1.0).all()


def test_overlap_is_the_share_of_the_update():
    update, mask = torch.tensor([True, True, True, False]), torch.tensor([True, False, False, True])
    assert overlap(update, mask) == pytest.approx(1 / 3)
    assert overlap(mask, update) == pytest.approx(1 / 2)


def test_rotation_keeps_type_and_is_drawn_again_from_the_same_seed():
    weight = torch.randn(3, 5)
    one, two = (rotated(weight, torch.Generator().manual_seed(4)) for _ in range(2))
    assert one.dtype == torch.float32 and torch.equal(one, two) and not torch.allclose(one, weight)
    assert torch.allclose(torch.linalg.svdvals(one), torch.linalg.svdvals(weight), atol=1e-5)


def test_rotations_prefer_no_sign():
    draw = torch.Generator().manual_seed(0)
    first = torch.stack([random_rotation(2, draw)[0] for _ in range(400)])
    assert first.mean(0).abs().max() < 0.15 and first.square().mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.1)


def test_every_matrix_of_two_checkpoints_is_measured():
    before, after = states()
    calls = []
    found = geometry(before, after, k=3, alpha=0.25, progress=lambda *call: calls.append(call))
    matrices = [name for name, weight in before.items() if weight.dim() == 2]
    assert list(found) == matrices and len(matrices) < len(before)
    assert calls[-1] == ("geometry", len(matrices), len(matrices))
    name = "blocks.0.attn.q.weight"
    old, new = before[name], after[name]
    one, changed = found[name], update_mask(before[name], after[name])
    assert one == geometry_of(old, new, 3, 0.25)
    assert one.shape == tuple(old.shape) and one.rank == 3
    assert one.spectral_shift == pytest.approx(spectral_shift(old, new))
    assert one.left_angles == pytest.approx(principal_angles(old, new, 3, "left").tolist())
    assert one.right_angles == pytest.approx(principal_angles(old, new, 3, "right").tolist())
    assert 0.3 < one.sparsity < 0.9
    assert one.sparsity == sparsity(changed) and one.bf16_sparsity == sparsity(bf16_mask(old, new))
    assert one.principal_overlap == overlap(changed, principal_mask(old, 3, 0.25))
    assert one.low_overlap == overlap(changed, low_mask(old, 0.25))
    assert one.update_norm == pytest.approx(float(torch.linalg.svdvals((new - old).double())[0]), rel=1e-5)
    sizes = torch.linalg.svdvals(old.double())
    assert one.gap == pytest.approx(float(sizes[2] - sizes[3]))
    assert one.principal_share == one.low_share == 0.25


def test_small_matrices_take_all_their_vectors():
    found = geometry_of(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 2.0, 4.0]]), k=8)
    assert found.rank == 1 and found.left_angles == pytest.approx((0.0,)) and found.gap == pytest.approx(math.sqrt(14))


def refused(call):
    with pytest.raises(BadOption) as caught:
        call()
    return str(caught.value)


def test_a_checkpoint_of_another_architecture_is_named():
    before, after = states()
    renamed = {name.replace("attn.q.weight", "attn.qq.weight"): weight for name, weight in after.items()}
    text = refused(lambda: geometry(before, renamed))
    assert "one is of another architecture: the later checkpoint has no 'blocks.0.attn.q.weight'" in text
    assert "Nearest: blocks.0.attn.qq.weight" in text
    more = after | {"blocks.1.attn.q.weight": torch.ones(8, 8)}
    assert "the earlier checkpoint has no 'blocks.1.attn.q.weight'" in refused(lambda: geometry(before, more))
    wider = after | {"embed.weight": torch.ones(11, 9)}
    assert "'embed.weight' is (11, 8) before and (11, 9) after" in refused(lambda: geometry(before, wider))


def test_what_cannot_be_measured_is_refused_with_the_name():
    before, after = states()
    broken = after | {"embed.weight": torch.full((11, 8), torch.nan)}
    assert "embed.weight: weights of a checkpoint: 88 of 88 are not finite" in refused(lambda: geometry(before, broken))
    dead = before | {"embed.weight": torch.zeros(11, 8)}
    assert "embed.weight: spectral shift of a matrix: it is 0 before" in refused(lambda: geometry(dead, after))
    assert "they hold no matrix" in refused(lambda: geometry({"b": torch.ones(3)}, {"b": torch.ones(3)}))
    assert "rank 0: a matrix of 11 x 8 has 1 to 8 singular vectors" in refused(lambda: geometry(before, after, k=0))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: principal_angles(diag(2.0, 1.0), diag(2.0, 1.0), 3), "rank 3: a matrix of 2 x 2 has 1 to 2 singular"),
        (lambda: low_mask(diag(1.0), 0.0), "alpha=0: a mask takes a share above 0 and at most 1"),
        (lambda: principal_mask(diag(1.0), 1, 1.5), "alpha=1.5"),
        (lambda: update_mask(diag(1.0), diag(1.0), eta=1.0), "eta=1: a relative change to overlook"),
        (lambda: overlap(diag(0.0) > 0, diag(0.0) > 0), "it changed no weight"),
        (lambda: jaccard_by_chance(1.2, 0.1), "a share of 1.2: shares are in 0..1"),
        (lambda: sparsity(torch.zeros(0, dtype=torch.bool)), "the mask is empty"),
        (lambda: random_rotation(0, torch.Generator()), "a rotation of 0 dimensions"),
        (lambda: spectral_shift(diag(1.0), diag(math.inf)), "1 of 1 are not finite"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(call, text):
    assert text in refused(call)

"""Laws of weight geometry: what identity, rotation, known angles, matrix perturbation theory and bfloat16 prescribe."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.train.geometry import geometry_of, principal_angles, spectral_shift, wedin_bound
from optrode.train.masks import (
    bf16_mask,
    jaccard,
    jaccard_by_chance,
    low_mask,
    overlap,
    principal_mask,
    random_rotation,
    rotated,
    update_mask,
)

some = settings(max_examples=25, deadline=None, database=None)
sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
seeds = st.integers(0, 10_000)


def draw(seed):
    return torch.Generator().manual_seed(seed)


def noise(shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=draw(seed), dtype=dtype)


def svals(weight):
    return torch.linalg.svdvals(weight.double())


def rank_of(shape, seed):
    return 1 + seed % min(shape)


@some
@given(sizes, seeds, st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_a_matrix_has_not_moved_from_itself(shape, seed, dtype):
    weight, k = noise(shape, seed).to(dtype), rank_of(shape, seed)
    assert spectral_shift(weight, weight) == 0.0
    for side in ("left", "right"):
        assert principal_angles(weight, weight, k, side).max() < 1e-6
    found = geometry_of(weight, weight, k)
    assert (found.sparsity, found.bf16_sparsity, found.update_norm) == (1.0, 1.0, 0.0)
    assert found.principal_overlap is None and found.low_overlap is None


@some
@given(st.integers(2, 7), st.floats(0.0, 90.0), seeds)
def test_a_rotation_by_a_known_angle_is_found_on_its_side_alone(n, degrees, seed):
    u, v = random_rotation(n, draw(seed)), random_rotation(n, draw(seed + 1))
    sizes = torch.arange(n, 0, -1, dtype=torch.float64)
    turn, angle = torch.eye(n, dtype=torch.float64), math.radians(degrees)
    k = 1 + seed % (n - 1)
    turn[[k - 1, k - 1, k, k], [k - 1, k, k - 1, k]] = torch.tensor(
        [math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)], dtype=torch.float64
    )
    before, after = (u * sizes) @ v.T, (u @ turn * sizes) @ v.T
    left, right = (principal_angles(before, after, k, side) for side in ("left", "right"))
    assert abs(float(left[-1]) - degrees) < 1e-5
    assert left[:-1].abs().max() < 1e-6 if k > 1 else True
    assert right.max() < 1e-6 and spectral_shift(before, after) < 1e-12


@some
@given(st.floats(1e-12, 1e-3))
def test_small_angles_keep_their_digits(angle):
    before = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    found = math.radians(float(principal_angles(before, turn @ before, 1)))
    assert abs(found - angle) < 1e-15 + 1e-9 * angle


@some
@given(sizes, seeds)
def test_rotating_both_changes_neither_shift_nor_angles(shape, seed):
    before, after = noise(shape, seed), noise(shape, seed) + 0.3 * noise(shape, seed + 1)
    left, right = random_rotation(shape[0], draw(seed)), random_rotation(shape[1], draw(seed + 1))
    assert abs(spectral_shift(left @ before @ right, left @ after @ right) - spectral_shift(before, after)) < 1e-10
    assert abs(spectral_shift(left @ before @ right, after) - spectral_shift(before, after)) < 1e-10
    k = rank_of(shape, seed)
    for side in ("left", "right"):
        turned = principal_angles(left @ before @ right, left @ after @ right, k, side)
        assert torch.allclose(turned, principal_angles(before, after, k, side), atol=1e-5)


@some
@given(sizes, seeds, st.floats(1e-3, 3.0))
def test_weyl_and_wedin(shape, seed, strength):
    before = noise(shape, seed)
    after = before + strength * noise(shape, seed + 1)
    moved = float(torch.linalg.matrix_norm(after - before, 2))
    assert float((svals(after) - svals(before)).abs().max()) <= moved + 1e-12
    assert spectral_shift(before, after) * float(svals(before).norm()) <= float((after - before).norm()) + 1e-12
    for k in range(1, min(shape) + 1):
        bound = wedin_bound(before, after, k)
        for side in ("left", "right"):
            sine = math.sin(math.radians(float(principal_angles(before, after, k, side).max())))
            assert sine <= bound + 1e-9


def test_the_gap_of_one_matrix_alone_gives_no_bound():
    before, after = torch.diag(torch.tensor([1.2, 1.0])).double(), torch.diag(torch.tensor([1.09, 1.11])).double()
    moved, own_gap = 0.11, 0.2
    sine = math.sin(math.radians(float(principal_angles(before, after, 1))))
    assert sine > moved / own_gap and sine <= 2 * moved / own_gap and wedin_bound(before, after, 1) == 1.0


@some
@given(seeds, st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_random_masks_overlap_by_their_share(seed, p, alpha):
    update = torch.rand(150, 150, generator=draw(seed)) < p
    mask = torch.rand(150, 150, generator=draw(seed + 1)) < alpha
    n = int(update.sum())
    assert abs(overlap(update, mask) - alpha) < 5 * math.sqrt(alpha * (1 - alpha) / n)
    assert abs(jaccard(update, mask) - jaccard_by_chance(p, alpha)) < 0.05


@some
@given(sizes, seeds, st.floats(0.01, 1.0))
def test_masks_take_their_share_and_lie_where_they_say(shape, seed, alpha):
    weight, k = noise(shape, seed), rank_of(shape, seed)
    n = max(1, round(alpha * weight.numel()))
    low, principal = low_mask(weight, alpha), principal_mask(weight, k, alpha)
    assert int(low.sum()) == int(principal.sum()) == n
    assert n == weight.numel() or weight[low].abs().max() <= weight[~low].abs().min()
    full = principal_mask(weight, min(shape), alpha)
    assert n == weight.numel() or weight[full].abs().min() >= weight[~full].abs().max() - 1e-12


@some
@given(seeds)
def test_rotating_a_weight_keeps_its_spectrum_and_moves_its_principal_weights(seed):
    weight = noise((60, 60), seed) * torch.linspace(0.1, 3, 60)[:, None] * torch.linspace(0.1, 3, 60)
    turned = rotated(weight, draw(seed + 1))
    assert spectral_shift(weight, turned) < 1e-10
    shared = overlap(principal_mask(weight, 5, 0.3), principal_mask(turned, 5, 0.3))
    assert abs(shared - 0.3) < 0.1


@some
@given(st.integers(1, 8), seeds)
def test_random_rotations_are_orthogonal(n, seed):
    turn = random_rotation(n, draw(seed))
    assert torch.allclose(turn @ turn.T, torch.eye(n, dtype=torch.float64), atol=1e-12)


def bf16_values(seed, n=200):
    """Any finite bfloat16 numbers, subnormal ones and zeros among them: the bits are drawn, neighbours among them."""
    bits = torch.randint(-(2**15), 2**15, (n,), generator=draw(seed), dtype=torch.int32)
    other = bits + torch.randint(-3, 4, (n,), generator=draw(seed + 1), dtype=torch.int32)
    both = [one.to(torch.int16).view(torch.bfloat16) for one in (bits, other)]
    is_number = both[0].isfinite() & both[1].isfinite()
    return tuple(one[is_number] for one in both)


@some
@given(seeds, st.sampled_from([torch.bfloat16, torch.float32, torch.float64]), st.sampled_from([1e-3, 2**-9, 0.0, 0.0039]))
def test_of_bfloat16_weights_both_update_masks_are_the_same(seed, dtype, eta):
    before, after = bf16_values(seed)
    found = update_mask(before.to(dtype), after.to(dtype), eta)
    assert torch.equal(found, bf16_mask(before, after))
    bits = before.view(torch.int16) != after.view(torch.int16)
    assert torch.equal(found, bits & ((before != 0) | (after != 0)))


def test_the_spacing_of_bfloat16_is_just_enough():
    before, after = torch.tensor([2.0 - 2**-7]), torch.tensor([2.0])
    assert bf16_mask(before, after).all() and update_mask(before, after, 0.0039).all()
    assert not update_mask(before, after, 2**-8).any()


@some
@given(seeds, st.floats(1e-5, 0.05))
def test_of_other_weights_the_masks_agree_once_rounded_and_large_changes_are_visible(seed, size):
    before = noise((300,), seed, torch.float32)
    after = before * (1 + size * noise((300,), seed + 1, torch.float32))
    visible = bf16_mask(before, after)
    assert torch.equal(update_mask(before.bfloat16(), after.bfloat16()), visible)
    assert bool(visible[update_mask(before, after, 2**-7)].all())


def test_of_other_weights_neither_mask_has_the_other_in_it():
    before = torch.tensor([1.0 + 2**-8 - 1e-5, 1.0])
    after = torch.tensor([1.0 + 2**-8 + 1e-5, 1.0 + 2**-9])
    assert bf16_mask(before, after).tolist() == [True, False]
    assert update_mask(before, after).tolist() == [False, True]


masks = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)


@some
@given(masks)
def test_jaccard_is_that_of_sets(drawn):
    a, b = (torch.tensor(side) for side in zip(*drawn, strict=True))
    first, second = ({ix for ix, one in enumerate(mask.tolist()) if one} for mask in (a, b))
    expected = len(first & second) / len(first | second) if first | second else 1.0
    assert jaccard(a, b) == jaccard(b, a) == expected
    assert jaccard(a, a) == 1.0
    assert (jaccard(a, b) == 1.0) == (first == second) and (not first or jaccard(a, ~a) == 0.0)


@some
@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_jaccard_by_chance_is_symmetric_and_below_the_smaller_share(p, q):
    found = jaccard_by_chance(p, q)
    assert found == jaccard_by_chance(q, p) and 0.0 <= found <= 1.0
    assert (p == q == 0.0 and found == 1.0) or found <= min(p, q) + 1e-12
    assert jaccard_by_chance(p, 1.0) == p or abs(jaccard_by_chance(p, 1.0) - p) < 1e-12

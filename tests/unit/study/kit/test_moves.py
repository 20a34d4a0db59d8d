"""How far matrices moved, against definitions written out, and updates of known kinds."""

import pytest
import torch

from optrode.study.kit import moves
from optrode.train.geometry import geometry_of, spectral_shift
from optrode.train.masks import largest

NAMES = ("a", "b")


def draw(seed, size=1.0):
    numbers = torch.Generator().manual_seed(seed)
    return {"a": size * torch.randn(12, 10, generator=numbers), "b": size * torch.randn(10, 20, generator=numbers),
            "gain": torch.ones(3)}  # fmt: skip


def plus(before, added):
    return moves.changed_to(before, {name: added[name] for name in NAMES}, NAMES)


def test_a_move_is_the_mean_over_matrices():
    before, after = draw(0), plus(draw(0), draw(1, 0.1))
    seen = moves.move(before, after, NAMES, 3)
    by_hand = [geometry_of(before[name], after[name], 3) for name in NAMES]
    assert seen.shift == pytest.approx(sum(one.spectral_shift for one in by_hand) / 2)
    assert seen.angle == pytest.approx(sum(one.left_angles[-1] + one.right_angles[-1] for one in by_hand) / 4)
    assert seen.changed == pytest.approx(1 - sum(one.bf16_sparsity for one in by_hand) / 2)
    assert seen.principal == pytest.approx(sum(one.principal_overlap - one.principal_share for one in by_hand) / 2)
    norms = [float((after[name] - before[name]).norm() / before[name].norm()) for name in NAMES]
    assert seen.norm == pytest.approx(sum(norms) / 2)
    per_norm = sum(spectral_shift(before[name], after[name]) / norm for name, norm in zip(NAMES, norms, strict=True)) / 2
    assert seen.shift_per_norm == pytest.approx(per_norm)


def test_energy_is_one_for_chance_and_the_most_there_is_within_the_principal_directions():
    weight = torch.randn(12, 10)
    chance = [moves.energy(weight, weight + 0.1 * torch.randn(12, 10), 3) for _ in range(300)]
    assert sum(chance) / 300 == pytest.approx(1.0, abs=0.1)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    inside = (u[:, :3] * s[:3]) @ vh[:3]
    assert moves.energy(weight, weight + inside, 3) == pytest.approx(120 / 9, rel=1e-4)
    assert moves.energy(weight, weight + (u[:, 3:] * s[3:]) @ vh[3:], 3) == pytest.approx(0.0, abs=1e-4)


def test_lengthened_weights_shift_by_their_norm_and_turn_nowhere():
    before = draw(0)
    longer = plus(before, moves.along_weights(before, {name: draw(1, 0.1)[name] for name in NAMES}))
    seen = moves.move(before, longer, NAMES, 3)
    assert seen.shift_per_norm == pytest.approx(1.0, rel=1e-4) and seen.angle == pytest.approx(0.0, abs=0.01)
    assert seen.shift == pytest.approx(seen.norm, rel=1e-4)


def test_made_updates_keep_the_norm_and_are_where_they_should_be():
    before, after = draw(0), plus(draw(0), draw(1, 0.1))
    moved = moves.updates(before, after, NAMES)
    mixed, tenth = moves.shuffled(moved, torch.Generator().manual_seed(3)), moves.concentrated(moved)
    for name in NAMES:
        assert mixed[name].flatten().sort().values.equal(moved[name].flatten().sort().values)
        assert not mixed[name].equal(moved[name])
        assert float(tenth[name].norm()) == pytest.approx(float(moved[name].norm()), rel=1e-4)
        assert (tenth[name] != 0).equal(largest(moved[name], 0.1))


def test_overlap_above_chance_is_nothing_for_independent_updates_and_most_for_the_same():
    before = {"a": torch.zeros(60, 60), "b": torch.zeros(60, 60)}
    one, two = ({name: torch.randn(60, 60) for name in NAMES} for _ in range(2))
    first, second = (moves.moved_most(before, after, NAMES) for after in (one, two))
    assert moves.above_chance(first, second, NAMES) == pytest.approx(0.0, abs=0.02)
    assert moves.above_chance(first, first, NAMES) == pytest.approx(1 - 0.01 / 0.19)


def test_visible_changes_are_those_of_bfloat16_values():
    before = {"a": torch.tensor([[1.0, 1.0, 1.0]]), "b": torch.ones(1, 1)}
    after = {"a": torch.tensor([[1.0, 1.001, 1.01]]), "b": torch.ones(1, 1)}
    assert moves.visibly(before, after, NAMES)["a"].tolist() == [[False, False, True]]


def test_an_update_made_smaller_leaves_more_as_it_was():
    before, added = draw(0), {name: draw(1, 0.1)[name] for name in NAMES}
    points = moves.unchanged_by_size(before, added, (1e-4, 1e-2, 1.0))
    assert [share for _, share in points] == sorted((share for _, share in points), reverse=True)
    assert points[0][1] > 0.95 and points[-1][1] < 0.05
    assert points[1][0] == pytest.approx(0.01 * points[-1][0])

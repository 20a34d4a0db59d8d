"""Progress measures are their definitions written out, on patterns known by hand and at the edges."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.train.measures import (
    attention_to,
    context_label_mass,
    induction_correctness,
    induction_strength,
    item_label_association,
    kernel_alignment,
    previous_token_score,
    sink_share,
    target_item_label_association,
    target_label_association,
)


def pattern_of(n_rows=3, n_heads=2, n_pos=5, dtype=torch.float64):
    scores = torch.randn(n_rows, n_heads, n_pos, n_pos, dtype=dtype)
    later = torch.ones(n_pos, n_pos, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1)


def close(found, expected):
    return torch.allclose(found.double(), torch.as_tensor(expected, dtype=torch.float64), atol=1e-12)


def test_induction_strength_is_right_minus_wrong_of_each_row():
    pattern, right, wrong = pattern_of(), torch.tensor([1, 3, 1]), torch.tensor([3, 1, 3])
    expected = [
        sum(float(pattern[row, head, 4, right[row]] - pattern[row, head, 4, wrong[row]]) for row in range(3)) / 3
        for head in range(2)
    ]
    assert close(induction_strength(pattern, right, wrong), expected)
    assert close(induction_strength(pattern, right - 5, wrong - 5, query=4), expected)
    assert close(induction_strength(pattern, wrong, right), [-value for value in expected])


def test_a_perfect_induction_head_has_strength_one():
    pattern = torch.zeros(2, 1, 5, 5)
    pattern[0, 0, -1, 1] = pattern[1, 0, -1, 3] = 1.0
    assert induction_strength(pattern, torch.tensor([1, 3]), torch.tensor([3, 1])).tolist() == [1.0]


def test_attention_from_positions_to_positions():
    pattern = pattern_of()
    queries = torch.tensor([[2, 4], [3, -1], [1, 2]])
    targets = torch.tensor([[[0, 1], [2, 2]], [[1, 1], [0, 3]], [[0, -4], [2, 0]]])
    expected = []
    for head in range(2):
        found = [
            sum(float(pattern[row, head, queries[row, ix], to]) for to in {int(one) % 5 for one in targets[row, ix]})
            for row in range(3) for ix in range(2)
        ]  # fmt: skip
        expected.append(sum(found) / 6)
    assert close(attention_to(pattern, queries, targets), expected)


def test_attention_to_everything_is_one_and_targets_count_once():
    pattern = pattern_of()
    assert close(attention_to(pattern, -1, torch.arange(5).expand(3, 5)), [1.0, 1.0])
    once, twice = torch.tensor([[1]] * 3), torch.tensor([[1, 1, -4]] * 3)
    assert close(attention_to(pattern, -1, once), attention_to(pattern, -1, twice))


def test_the_three_attention_measures_of_reddy():
    pattern, labels, items = pattern_of(), torch.tensor([[1, 3]] * 3), torch.tensor([[0, 2]] * 3)
    own = (pattern[:, :, 1, 0] + pattern[:, :, 3, 2]).mean(0) / 2
    assert close(item_label_association(pattern, labels, items), own)
    right = torch.tensor([1, 3, 3])
    to_right = torch.stack([pattern[row, :, 4, to] for row, to in enumerate(right)]).mean(0)
    assert close(target_item_label_association(pattern, right), to_right)
    assert close(target_label_association(pattern, labels), (pattern[:, :, 4, 1] + pattern[:, :, 4, 3]).mean(0))


def test_correctness_is_strength_where_one_label_is_right():
    pattern, labels = pattern_of(), torch.tensor([[1, 3]] * 3)
    is_same = torch.tensor([[True, False], [False, True], [True, False]])
    right, wrong = torch.tensor([1, 3, 1]), torch.tensor([3, 1, 3])
    assert close(induction_correctness(pattern, labels, is_same), induction_strength(pattern, right, wrong))
    all_same = torch.ones(3, 2, dtype=torch.bool)
    assert close(induction_correctness(pattern, labels, all_same), target_label_association(pattern, labels))


def test_previous_token_and_sink_by_hand():
    pattern = torch.tensor([[1.0, 0, 0], [0.7, 0.3, 0], [0.2, 0.5, 0.3]])[None, None]
    assert torch.allclose(previous_token_score(pattern), torch.tensor([0.6]))
    assert torch.allclose(sink_share(pattern), torch.tensor([0.45]))
    assert torch.allclose(sink_share(pattern, skip=2), torch.tensor([0.2]))


def test_a_shifted_identity_looks_back_and_never_at_the_sink():
    pattern = torch.eye(6).roll(1, 0)[None, None]
    assert previous_token_score(pattern).item() == 1.0 and sink_share(pattern, skip=2).item() == 0.0


def test_half_precision_is_computed_with_in_float32():
    pattern = pattern_of(n_rows=64, dtype=torch.float32)
    found = previous_token_score(pattern.bfloat16())
    assert found.dtype == torch.float32
    assert torch.allclose(found, previous_token_score(pattern.bfloat16().float()))
    assert previous_token_score(pattern.double()).dtype == torch.float64


def test_measures_keep_their_gradient():
    pattern = pattern_of().requires_grad_()
    induction_strength(pattern, torch.tensor([1, 1, 1]), torch.tensor([3, 3, 3])).sum().backward()
    assert pattern.grad[:, :, -1, 1].flatten().tolist() == pytest.approx([1 / 3] * 6)
    assert pattern.grad.abs().sum().item() == pytest.approx(4.0)


def test_mass_of_the_labels_in_context_counts_each_once():
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]], dtype=torch.float64))
    labels = torch.tensor([[3, 3, 0], [1, 2, 1]])
    assert context_label_mass(logits, labels) == pytest.approx(0.5)
    assert context_label_mass(logits + 7.0, torch.arange(4).expand(2, 4)) == pytest.approx(1.0)


def neighbours(vectors, k):
    """Written out: of each row the k others of largest cosine similarity."""
    unit = [[x / sum(y * y for y in row) ** 0.5 for x in row] for row in vectors.tolist()]
    found = []
    for i, one in enumerate(unit):
        order = sorted((j for j in range(len(unit)) if j != i), key=lambda j: -sum(map(float.__mul__, one, unit[j])))  # noqa: B023
        found.append(set(order[:k]))
    return found


def test_alignment_is_the_mean_share_of_common_neighbours():
    a, b = torch.randn(12, 4, dtype=torch.float64), torch.randn(12, 3, dtype=torch.float64)
    shares = [len(one & other) / 3 for one, other in zip(neighbours(a, 3), neighbours(b, 3), strict=True)]
    assert kernel_alignment(a, b, k=3) == pytest.approx(sum(shares) / 12)


def test_alignment_does_not_see_rotation_and_size():
    a = torch.randn(20, 6, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    assert kernel_alignment(a, (a @ turn) * torch.rand(20, 1, dtype=torch.float64).add(0.5), k=4) == 1.0


def test_unrelated_vectors_align_at_chance_and_all_others_are_always_common():
    a, b = torch.randn(200, 30), torch.randn(200, 30)
    assert kernel_alignment(a, b, k=20) == pytest.approx(20 / 199, abs=0.02)
    assert kernel_alignment(a, b, k=199) == 1.0


def test_no_row_is_its_own_neighbour_even_where_all_others_are_opposite():
    a = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [-1.0, -0.1]])
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    assert kernel_alignment(a, b, k=1) == pytest.approx(2 / 3)


def test_nearness_ties_go_to_the_first_row():
    assert kernel_alignment(torch.ones(5, 2), torch.ones(5, 3), k=2) == 1.0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: attention_to(pattern_of(), 5, torch.tensor([[0]] * 3)), "from 5 to 5: the pattern has the positions 0"),
        (lambda: attention_to(pattern_of(), 4, torch.tensor([[0], [1], [-6]])), "target positions from -6 to 1"),
        (lambda: previous_token_score(pattern_of(n_pos=1)), "from a previous position: the prompts have 1 positions"),
        (lambda: sink_share(pattern_of(), skip=0), "position 0 has nowhere else to look"),
        (lambda: sink_share(pattern_of(), skip=5), "after the 5 that are skipped: the prompts have 5 positions"),
        (lambda: context_label_mass(torch.zeros(1, 4), torch.tensor([[4]])), "4 to 4: the logits have the columns 0"),
        (lambda: kernel_alignment(torch.ones(5, 2), torch.ones(5, 2), k=5), "k=5 neighbours: each of 5 rows has 4 others"),
        (lambda: kernel_alignment(torch.ones(5, 2), torch.ones(5, 2), k=0), "k=0 neighbours"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(call, text):
    with pytest.raises(BadOption) as caught:
        call()
    assert text in str(caught.value)

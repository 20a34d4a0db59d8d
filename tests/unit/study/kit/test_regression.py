"""Features and labels follow their law, ridge regression is its definition, and a probe finds what was planted."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.nn.transformer import Spec, as_model, build
from optrode.study.kit import regression as task


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_phi_is_an_mlp_of_orthogonal_maps():
    phi = task.draw_representation(5, 2, generator())
    for layer in phi.layers:
        assert torch.allclose(layer @ layer.T, torch.eye(5), atol=1e-5)
    x = torch.randn(1, 1, 5)
    first, second = phi.layers
    leaky = lambda v: torch.where(v > 0, v, 0.01 * v)  # noqa: E731
    assert torch.allclose(phi(x)[0, 0], phi.scale * leaky(second @ leaky(first @ x[0, 0])), atol=1e-6)


@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_labels_have_variance_one_without_noise(n_layers):
    prompts = task.draw_prompts(task.draw_representation(4, n_layers, generator()), 4000, 5, 0.0, generator(1))
    assert float(prompts.ys.var()) == pytest.approx(1, rel=0.1)


def test_labels_are_linear_in_the_features_with_one_w_per_row():
    prompts = task.draw_prompts(task.draw_representation(3, 2, generator()), 4, 9, 0.0, generator(1))
    for row in range(4):
        features, ys = prompts.features[row].double(), prompts.ys[row].double()
        w = torch.linalg.lstsq(features, ys[:, None]).solution
        assert torch.allclose((features @ w)[:, 0], ys, atol=1e-4)


def test_noise_has_its_deviation():
    phi = task.draw_representation(3, 1, generator())
    clean, noisy = (task.draw_prompts(phi, 2000, 4, noise, generator(1)) for noise in (0.0, 0.3))
    assert float((noisy.ys - clean.ys).std()) == pytest.approx(0.3, rel=0.05)


def test_x_and_y_are_read_in_turn():
    prompts = task.draw_prompts(task.draw_representation(2, 0, generator()), 1, 2, 0.1, generator(1))
    (x1, x2), (y1, y2) = prompts.xs[0].tolist(), prompts.ys[0].tolist()
    expected = torch.tensor([[[*x1, 0.0], [0.0, 0.0, y1], [*x2, 0.0], [0.0, 0.0, y2]]])
    assert torch.allclose(prompts.read, expected)


def test_paired_labels_have_their_x():
    phi = task.draw_representation(2, 0, generator())
    plain, paired = (task.draw_prompts(phi, 3, 4, 0.1, generator(1), is_paired=one) for one in (False, True))
    assert torch.equal(paired.read[:, 1::2, 2:4], paired.xs)
    assert torch.equal(paired.read[:, ::2, :2], paired.xs) and not paired.read[:, ::2, 2:].any()
    assert torch.equal(paired.read[..., -1], plain.read[..., -1]) and not paired.read[:, 1::2, :2].any()


def test_ridge_is_its_definition_on_the_points_before():
    features, ys = torch.randn(3, 6, 2), torch.randn(3, 6)
    found = task.ridge(features, ys, 0.3)
    for row in range(3):
        for point in range(6):
            seen, labels = features[row, :point], ys[row, :point]
            w = torch.linalg.inv(seen.T @ seen + 0.3 * torch.eye(2)) @ seen.T @ labels
            assert float(found[row, point]) == pytest.approx(float(w @ features[row, point]), abs=1e-4)


def test_ridge_on_the_right_features_is_best():
    prompts = task.draw_prompts(task.draw_representation(4, 2, generator()), 500, 12, 0.1, generator(1))
    read = (prompts.features, prompts.xs)
    right, wrong = (task.risk(task.ridge(one, prompts.ys, 0.01), prompts.ys)[8:].mean() for one in read)
    assert float(right) < 0.06 and float(wrong) > 0.3


def test_ridge_without_a_penalty_is_refused():
    with pytest.raises(BadOption, match="no one solution"):
        task.ridge(torch.randn(1, 3, 2), torch.randn(1, 3), 0.0)


def test_a_probe_reads_what_was_planted_and_nothing_else():
    hidden = torch.randn(40, 10, 6)
    planted = hidden @ torch.randn(6, 3) + 2
    assert task.probe(hidden, planted) == pytest.approx(1, abs=1e-3)
    assert task.probe(hidden, torch.randn(40, 10, 3)) < 0.1
    assert task.probe(hidden, planted + planted.std() * torch.randn(40, 10, 3)) == pytest.approx(0.5, abs=0.15)


def test_a_probe_is_tested_on_rows_that_it_was_not_fitted_on():
    hidden = torch.randn(4, 2, 50)
    assert task.probe(hidden, torch.randn(4, 2, 1)) < 0.9
    with pytest.raises(BadOption, match="1 row"):
        task.probe(hidden[:1], torch.randn(1, 2, 1))


@torch.no_grad()
def test_predictions_are_read_at_x_tokens_and_do_not_see_their_label():
    model = as_model(build(Spec(2, 2, 8, 1, 8, d_mlp=16, d_in=3, d_out=1), 0))
    prompts = task.draw_prompts(task.draw_representation(2, 1, generator()), 3, 4, 0.1, generator(1))
    found = task.predictions(model, prompts)
    assert torch.equal(found, model(inputs_embeds=prompts.read).logits[:, 0::2, 0])
    ys = prompts.ys.clone()
    ys[:, 2] += 1
    moved = task.predictions(model, task.Prompts(prompts.xs, prompts.features, ys, 0.1)) - found
    assert bool((moved[:, :3].abs() < 1e-6).all()) and bool((moved[:, 3].abs() > 1e-6).all())
    assert float(task.loss(model, prompts)) == pytest.approx(float((found - prompts.ys).square().mean()))

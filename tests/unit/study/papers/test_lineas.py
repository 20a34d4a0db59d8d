"""What is particular to the study of LinEAS: its controls are what they say."""

import pytest
import torch

from optrode.control.transport import Map, Maps
from optrode.model.names import parse
from optrode.study.papers import lineas as study
from optrode.study.study import Setting


def generator():
    return torch.Generator().manual_seed(0)


def maps(weight):
    return Maps((Map(parse("embed"), weight, torch.where(weight == 1, 0.0, 2.0)),), "LinEAS", "mean")


def test_as_many_features_are_kept_at_random_as_others_changed():
    free = maps(torch.arange(2.0, 12.0))
    sparse = maps(torch.tensor([1.0, 1, 3, 1, 1, 5, 1, 1, 1, 4]))
    random = study.at_random(free, sparse, generator())
    assert random.identity_share == sparse.identity_share == 0.7
    kept = random.maps[0].changed
    assert torch.equal(random.maps[0].weight[kept], free.maps[0].weight[kept])
    assert not torch.equal(kept, sparse.maps[0].changed)


def test_shuffled_features_are_the_same_maps_elsewhere():
    free = maps(torch.arange(2.0, 12.0))
    moved = study.with_features_shuffled(free, generator()).maps[0]
    assert not torch.equal(moved.weight, free.maps[0].weight)
    assert torch.equal(moved.weight.sort().values, free.maps[0].weight)


def test_sites_left_untouched_can_be_held_too():
    assert len(study.gates_of(maps(torch.ones(3)), 0.5)) == 1


def test_rows_to_test_on_are_none_of_those_that_maps_are_fitted_on():
    lab = study._Lab(Setting(3, "quick"), study.Coupled(1.0), 16)
    assert not torch.equal(lab.fitted[0], lab.sides(16, 2)[0])
    assert torch.equal(lab.fitted[0], lab.sides(16, 1)[0])
    assert torch.cat(lab.unlabelled()).sum() == pytest.approx(float(torch.cat(lab.fitted).sum()), abs=1e-3)


def test_where_nothing_is_coupled_both_methods_leave_the_same(monkeypatch):
    lab = study._Lab(Setting(3, "measured"), study.Coupled(0.0), 24)
    monkeypatch.setattr(study, "lineas", lambda *given, **options: _lineas(*given, **(options | {"n_steps": 60, "lr": 0.1})))
    together, by_site = (lab.left(*study.gates_of(one)) for one in (lab.together(), lab.by_site()))
    assert together == pytest.approx(by_site, rel=0.05)


_lineas = study.lineas

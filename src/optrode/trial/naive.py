"""One trial at a time, with hooks and full logits: the reference that every faster way is compared with."""

import torch

from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.site.recording import record
from optrode.trial.metric import find_metric, measure
from optrode.trial.prompts import Task, groups_by_length
from optrode.trial.trial import Trial
from optrode.trial.worlds import inputs_of, read_logits


@torch.no_grad()
def run_naively(model: Model, task: Task, trial: Trial) -> tuple[float, ...]:
    """[prompt] the metric of a trial. Worlds that its gates name are recorded anew.

    Raises:
        Everything that `gates` raises.
    """
    metric = find_metric(trial.metric)
    values = [0.0] * len(task)
    for group in groups_by_length(task.pairs):
        pairs = [task.pairs[ix] for ix in group]
        named = {gate.actuator.world for gate in trial.gates} - {None}
        sites = [gate.site.whole for gate in trial.gates]
        worlds = {w: record(model, inputs_of(model, pairs, w), sites) for w in named if w}
        read = metric.positions(pairs[0])
        with gates(model, *(gate.bound(worlds) for gate in trial.gates)):
            logits = read_logits(model, inputs_of(model, pairs, trial.world), read, whole=True)
        plain = read_logits(model, inputs_of(model, pairs, metric.against), read, whole=True) if metric.against else None
        for ix, value in zip(group, measure(metric, logits, pairs, plain).tolist(), strict=True):
            values[ix] = value
    return tuple(values)

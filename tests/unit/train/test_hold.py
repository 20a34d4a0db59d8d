"""Gates in the training loops of others, and in one's own: what they hold is what a written-out loop holds."""

import json
import os
import subprocess
import sys
import warnings
from importlib.util import find_spec

import pytest
import torch
from torch import nn

import optrode as op
from optrode.errors import BadOption
from optrode.gate.held import Held
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from tests.unit.train.plans import equal

Z = "blocks.0.attn.z[head=1]"
ROWS = torch.randint(0, 61, (16, 5), generator=torch.Generator().manual_seed(3))


def gate():
    return op.zero(Z, when=op.when(until=2))


def by_hand(model, *held, n_steps=4, n_parts=2, size=2):
    """SGD over the rows in their order."""
    optimizer = torch.optim.SGD(model.module.parameters(), lr=0.05)
    model.module.train()
    with op.gates(model, *held, optimizer=optimizer):
        for step in range(n_steps):
            optimizer.zero_grad()
            for part in range(n_parts):
                first = (step * n_parts + part) * size
                rows = ROWS[first : first + size]
                (model.module(input_ids=rows, labels=rows).loss / n_parts).backward()
            optimizer.step()
    return dict(model.module.state_dict())


def fresh():
    return from_source(tiny("gpt2", attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0))


def trainer_of(model, folder, callbacks, **options):
    """transformers' Trainer over the same rows, in the same order, with the same optimiser."""
    from transformers import Trainer, TrainingArguments

    class Ordered(Trainer):
        def _get_train_sampler(self, *args, **kwargs):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    given = {
        "max_steps": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "report_to": [],
        "max_grad_norm": 0.0, "save_strategy": "no", "logging_steps": 1, "use_cpu": True, "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }  # fmt: skip
    arguments = TrainingArguments(output_dir=str(folder), **(given | options))
    optimizer = torch.optim.SGD(model.module.parameters(), lr=0.05)
    def half(outputs, labels, num_items_in_batch=None):
        """Of a step of two parts; the Trainer's own counts a label for the first token too."""
        return nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()) / 2

    flat = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    data = [{"input_ids": row, "labels": row} for row in ROWS]
    both = {"optimizers": (optimizer, flat), "compute_loss_func": half}
    return Ordered(model.module, arguments, train_dataset=data, callbacks=callbacks, **both)


@pytest.fixture
def quiet():
    """Warnings of the trainers themselves are theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def far(one, two):
    return max(float((value - two[name]).abs().max()) for name, value in one.items())


def test_a_gate_in_transformers_trainer_counts_optimiser_steps(tmp_path, quiet):
    expected, free = by_hand(fresh(), gate()), by_hand(fresh())
    model = fresh()
    with op.gates(model, gate()) as held:
        trainer_of(model, tmp_path, [op.train.trainer_callback(held)]).train()
    assert held.step_ix == 4
    assert far(dict(model.module.state_dict()), expected) < 1e-7 < 1e-4 < far(expected, free)


def test_what_the_trainer_logs_opens_gates(tmp_path, quiet):
    later = op.scale("blocks.1.mlp_out", 0.0, when=op.when(measure="loss", below=1e9))
    model = fresh()
    with op.gates(model, later) as held:
        trainer_of(model, tmp_path, [op.train.trainer_callback(held)]).train()
    waited = op.scale("blocks.1.mlp_out", 0.0, when=op.when(1))
    assert far(dict(model.module.state_dict()), by_hand(fresh(), waited)) < 1e-7


def test_a_trainer_that_takes_up_a_checkpoint_counts_from_there(tmp_path, quiet):
    from transformers import TrainerCallback

    seen = []

    class Looks(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            seen.append(held.step_ix)

    model = fresh()
    with op.gates(model, op.scale("blocks.0.mlp_out", 0.9)) as held:
        trainer_of(model, tmp_path, [op.train.trainer_callback(held)], save_strategy="steps", save_steps=2).train()
    model = fresh()
    with op.gates(model, op.scale("blocks.0.mlp_out", 0.9)) as held:
        trainer_of(model, tmp_path, [op.train.trainer_callback(held), Looks()]).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-2")
        )
    assert seen == [2, 3]


LIGHTNING = """
import json, sys
import torch
import optrode as op
from tests.unit.train.test_hold import ROWS, Z, by_hand, far, fresh, gate
try:
    import lightning.pytorch as pl
except ImportError:
    import pytorch_lightning as pl

class Training(pl.LightningModule):
    def __init__(self, module):
        super().__init__()
        self.module = module
    def training_step(self, rows, ix):
        loss = self.module(input_ids=rows, labels=rows).loss
        self.log("loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.module.parameters(), lr=0.05)

model = fresh()
with op.gates(model, gate()) as held:
    trainer = pl.Trainer(max_steps=4, accumulate_grad_batches=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[op.train.lightning_callback(held)])
    model.module.train()
    trainer.fit(Training(model.module), torch.utils.data.DataLoader(ROWS, batch_size=2))
expected, free = by_hand(fresh(), gate()), by_hand(fresh())
got = dict(model.module.state_dict())
print(json.dumps([held.step_ix, far(got, expected), far(expected, free)]))
"""


def test_a_gate_in_lightnings_trainer_counts_optimiser_steps():
    if not any(_has(name) for name in ("lightning", "pytorch_lightning")):
        pytest.skip("lightning is not installed")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LIGHTNING], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    n_steps, off, effect = json.loads(done.stdout.splitlines()[-1])
    assert n_steps == 4 and off < 1e-7 < 1e-4 < effect


def _has(name):
    return find_spec(name) is not None


def test_lightning_that_is_not_installed_is_told():
    if any(_has(name) for name in ("lightning", "pytorch_lightning")):
        pytest.skip("lightning is installed")
    with pytest.raises(BadOption, match="lightning is not installed.*pip install 'lightning'"):
        op.train.lightning_callback(Held(()))


class TestOwnLoop:
    def test_steps_are_counted_by_the_optimiser_not_by_the_pass(self):
        model, seen = fresh(), []
        optimizer = torch.optim.SGD(model.module.parameters(), lr=0.05)
        with op.gates(model, op.scale(Z, 0.5), optimizer=optimizer) as held:
            for _ in range(2):
                for _ in range(3):
                    model.module(input_ids=ROWS[:2], labels=ROWS[:2]).loss.backward()
                    seen.append(held.step_ix)
                optimizer.step()
        assert seen == [0, 0, 0, 1, 1, 1] and held.step_ix == 2
        optimizer.step()
        assert held.step_ix == 2 and not optimizer._optimizer_step_post_hooks

    def test_steps_that_a_gradient_scaler_leaves_out_do_not_count(self):
        layer = nn.Linear(3, 1)
        model = from_source(layer)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=1000)
        with op.gates(model, op.scale("module:.out", 1.0), optimizer=optimizer) as held:
            for value in (1.0, float("inf"), 1.0, float("nan"), 1.0):
                optimizer.zero_grad()
                scaler.scale(layer(torch.full((2, 3), value)).sum()).backward()
                scaler.step(optimizer)
                scaler.update()
        assert held.step_ix == 3

    def test_autocast_keeps_types_and_gates_act(self):
        dtype = torch.bfloat16
        model = fresh()
        gates = (
            op.zero(Z), op.scale("blocks.*.attn.pattern", 0.9), op.add("blocks.1.resid_pre", torch.ones(36)),
            op.patch("blocks.1.mlp_out", op.first_pass()), op.scale("blocks.1.resid_mid", 1.1),
            op.compute("blocks.2.mlp_out", lambda h, around: 2 * around["blocks.1.mlp_out"], reads="blocks.1.mlp_out"),
        )
        sites = [Z, "blocks.0.attn.z", "blocks.*.attn.pattern", "blocks.2.mlp_out", "blocks.1.resid_mid", "logits"]
        with torch.autocast("cpu", dtype=dtype):
            with op.recording(model, sites) as free:
                model.module(input_ids=ROWS[:2])
            with op.gates(model, *gates), op.recording(model, sites) as held:
                loss = model.module(input_ids=ROWS[:2], labels=ROWS[:2]).loss
        loss.backward()
        assert {name: value.dtype for name, value in held.items()} == {name: value.dtype for name, value in free.items()}
        assert dtype in {value.dtype for value in held.values()}
        assert not held[Z].any() and torch.isfinite(loss)
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.module.parameters())
        full = fresh()
        with op.gates(full, *gates), op.recording(full, sites) as whole:
            full.module(input_ids=ROWS[:2])
        torch.testing.assert_close(held["logits"].float(), whole["logits"], rtol=0.1, atol=0.3)


def test_a_run_with_the_same_gates_goes_on_where_it_was(tmp_path):
    gates = (gate(), op.scale("blocks.1.mlp_out", 0.5, when=op.when(1, measure="loss", below=2.0)))
    first = Held(gates)
    first.step(3)
    first.tell(loss=1.5)
    first.acted(0)
    second = Held(gates)
    second.resume(json.loads(json.dumps(first.state())))
    for held in (first, second):
        held.step(1)
    assert [second.openness(schedule) for schedule in second.schedules] == [0.0, 1.0]
    assert second.step_ix == 4 and second.has_acted_before(0) and not second.has_acted_before(1)
    assert second.state() == first.state()
    with pytest.raises(BadOption, match="resume 0 schedule"):
        Held(()).resume(first.state())


def test_a_callback_does_not_count_what_the_optimiser_counted(tmp_path, quiet):
    model = fresh()
    trainer = trainer_of(model, tmp_path, [])
    with op.gates(model, gate(), optimizer=trainer.optimizer) as held:
        trainer.add_callback(op.train.trainer_callback(held))
        trainer.train()
    assert held.step_ix == 4 and equal(dict(model.module.state_dict()), dict(trainer.model.state_dict()))

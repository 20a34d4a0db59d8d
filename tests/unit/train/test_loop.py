"""`fit`: it computes what the written-out loop does, and a run that was ended anywhere goes on to the same bits."""

import pytest
import torch
from torch import nn

import optrode as op
from optrode.errors import BadFile, BadOption, GateNotFired, LossNotFinite, RunBusy
from optrode.records import read_json
from optrode.store.lock import WriterLock
from optrode.train import Measure, Stop, adam, adamw, fit, load_run, sgd
from optrode.train.loop import batch_seed
from tests.unit.train.plans import HEAD, batch, equal, make, make_llama, next_token, outcome, plan, same, size, weights


class Killed(Exception):
    """Stands in for the end of the process."""


def killed_at(step):
    def progress(name, done, total):
        if done == step:
            raise Killed

    return progress


def begun(folder, made, step, **options):
    with pytest.raises(Killed):
        fit(made, out=folder, progress=killed_at(step), **options)


def by_hand(made, n_steps=None):
    """The loop that `fit` is said to be, written out."""
    with torch.random.fork_rng():
        torch.manual_seed(made.random_seed)
        model = made.make(made.random_seed)
        optimizer = made.optimizer([p for p in model.module.parameters() if p.requires_grad])
        model.module.train()
        losses = []
        for step in range(n_steps or made.n_steps):
            optimizer.zero_grad()
            total = 0.0
            for part in range(made.n_parts):
                index = step * made.n_parts + part
                generator = torch.Generator().manual_seed(batch_seed(made.random_seed, index))
                loss = next_token(model, batch(index, generator)) / made.n_parts
                loss.backward()
                total += float(loss.detach())
            if made.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.module.parameters(), made.clip_norm)
            optimizer.step()
            losses.append(total)
    return dict(model.module.state_dict()), losses


class TestFit:
    @pytest.mark.parametrize("changes", [{}, {"n_parts": 2}, {"clip_norm": 0.1}, {"make": make_llama}, {"random_seed": 3}])
    def test_it_computes_what_the_written_out_loop_does(self, changes):
        made = plan(**changes)
        expected, losses = by_hand(made)
        trained = fit(made)
        assert equal(weights(trained), expected)
        assert trained.run.loss.values == tuple(losses) and trained.run.loss.steps == tuple(range(6))

    def test_parts_of_a_step_add_up_to_the_mean_of_their_gradients(self):
        whole = lambda model, tokens: next_token(model, torch.cat(tokens))  # noqa: E731
        two = lambda number, generator: [  # noqa: E731
            batch(0, torch.Generator().manual_seed(2 * number)), batch(0, torch.Generator().manual_seed(2 * number + 1)),
        ]
        split = plan(n_steps=3, optimizer=sgd(0.5), n_parts=2)
        joined = plan(n_steps=3, optimizer=sgd(0.5)).but(batch=two, loss=whole)
        for name, value in weights(fit(split)).items():
            torch.testing.assert_close(value, weights(fit(joined))[name], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("made_by", [make, make_llama])
    def test_measures_and_checkpoints_leave_the_training_alone(self, made_by):
        bare = plan(make=made_by, measures={}, measure_at=())
        looked = plan(make=made_by, measure_at=tuple(range(7)), keep_at=(1, 4))
        gated = {"size": Measure(size, is_free=True), "other": Measure(lambda model: {"a": 1, "b": size(model)})}
        assert equal(weights(fit(bare)), weights(fit(looked)))
        assert equal(weights(fit(bare)), weights(fit(looked.but(measures=gated))))

    def test_the_callers_random_numbers_and_hooks_are_left_alone(self):
        before = torch.get_rng_state()
        trained = fit(plan(gates=(HEAD,), n_steps=3))
        assert torch.equal(torch.get_rng_state(), before)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in trained.model.module.modules())
        assert not trained.model.module.training

    def test_gates_hold_while_they_are_open_and_counted_by_steps(self):
        z = "blocks.0.attn.z[head=1]"
        measured = {
            "held": Measure(lambda model: float(op.record(model, [[1, 2, 3]], z)[z].abs().max())),
            "free": Measure(lambda model: float(op.record(model, [[1, 2, 3]], z)[z].abs().max()), is_free=True),
        }
        run = fit(plan(gates=(HEAD,), measures=measured, measure_at=(0, 1, 2, 3))).run
        assert [value == 0 for value in run.measures["held"].values] == [True, True, False, False]
        assert all(value > 0 for value in run.measures["free"].values)

    def test_a_threshold_on_the_loss_opens_a_gate_from_the_next_step_on(self):
        free = fit(plan()).run.loss.values
        bound = free[2] * 1.0001 if free[2] < min(free[:2]) else max(free)
        passed = next(ix for ix, value in enumerate(free) if value < bound)
        gate = op.scale("blocks.0.mlp_out", 0.0, when=op.when(measure="loss", below=bound))
        held = fit(plan(gates=(gate,))).run.loss.values
        assert held[: passed + 1] == free[: passed + 1] and held[passed + 1] != free[passed + 1]

    def test_frozen_parameters_stay_and_the_others_learn(self):
        def half(random_seed):
            model = make(random_seed)
            model.module.blocks[0].requires_grad_(False)
            return model

        before, after = dict(make(0).module.state_dict()), weights(fit(plan(make=half)))
        moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
        assert moved == {name for name in after if not name.startswith("blocks.0.")}

    def test_tied_weights_stay_tied(self):
        module = fit(plan(make=make_llama)).model.module
        assert module.lm_head.weight.data_ptr() == module.model.embed_tokens.weight.data_ptr()


class TestStop:
    def test_it_ends_at_the_first_measurement_that_passes(self):
        losses = fit(plan()).run.loss.values
        bound = sorted(losses)[2]
        first = next(ix for ix, value in enumerate(losses) if value < bound)
        run = fit(plan(stop=Stop("loss", below=bound))).run
        assert run.is_stopped and run.n_steps == first + 1 and run.loss.values == losses[: first + 1]

    def test_on_a_measure_it_ends_before_the_update_of_that_step(self):
        whole = fit(plan(measure_at=tuple(range(7)))).run.measures["size"].values
        bound = sorted(whole)[-2]
        run = fit(plan(measure_at=tuple(range(7)), stop=Stop("size", above=bound))).run
        first = next(ix for ix, value in enumerate(whole) if value > bound)
        assert run.n_steps == first and run.measures["size"].values == whole[: first + 1]
        assert run.is_stopped == (first < 6) or first == 6

    def test_a_stopped_run_is_finished_until_its_stop_is_moved(self, tmp_path):
        losses = fit(plan()).run.loss.values
        stopped = plan(stop=Stop("loss", below=max(losses) * 1.01))
        assert fit(stopped, out=tmp_path).run.n_steps == 1
        assert fit(stopped, out=tmp_path).run.n_steps == 1
        on = fit(plan(), out=tmp_path)
        assert on.run.n_steps == 6 and not on.run.is_stopped and on.run.loss.values == losses


class TestCheckpoints:
    def test_they_hold_the_weights_before_the_update_of_their_step(self, tmp_path):
        made = plan(keep_at=(0, 2, 6))
        for folder in (None, tmp_path):
            trained = fit(made, out=folder)
            assert [one.step for one in trained.run.checkpoints] == [0, 2, 6]
            assert equal(trained.weights_at(0), dict(make(0).module.state_dict()))
            assert equal(trained.weights_at(2), by_hand(made, 2)[0])
            assert equal(trained.weights_at(6), weights(trained))

    @pytest.mark.parametrize("fused", [False, True])
    def test_their_hash_is_that_of_their_weights(self, tmp_path, fused):
        trained = fit(plan(keep_at=(0, 1, 2, 6), optimizer=adamw(1e-2, fused=fused)), out=tmp_path)
        for one in trained.run.checkpoints:
            model = make(5)
            model.module.load_state_dict(trained.weights_at(one.step))
            assert model.weights_hash == one.weights_hash

    @pytest.mark.parametrize("name", ["size", "loss"])
    def test_one_is_kept_when_a_threshold_is_passed_first(self, name):
        whole = fit(plan(measure_at=tuple(range(7)))).run
        values = whole.measures["size"].values if name == "size" else (None, *whole.loss.values)
        bound = sorted(v for v in values if v is not None)[2]
        first = next(ix for ix, value in enumerate(values) if value is not None and value < bound)
        run = fit(plan(measure_at=tuple(range(7)), keep_when=(Stop(name, below=bound),))).run
        assert [one.step for one in run.checkpoints] == [first]

    def test_the_step_that_ends_a_run_can_be_kept(self):
        losses = fit(plan()).run.loss.values
        at = Stop("loss", below=max(losses) * 1.01)
        trained = fit(plan(stop=at, keep_when=(at,)))
        assert [one.step for one in trained.run.checkpoints] == [1]
        assert equal(trained.weights_at(1), weights(trained))

    def test_a_step_without_one_names_the_nearest(self):
        trained = fit(plan(keep_at=(0, 4)))
        with pytest.raises(BadOption, match="checkpoint of step 3.*Nearest: 4, 0"):
            trained.weights_at(3)
        with pytest.raises(BadOption, match="the run kept no checkpoint"):
            fit(plan()).weights_at(3)


PLANS = {
    "adamw": {"keep_at": (0, 2, 4, 6), "keep_when": (Stop("size", above=0.0),), "gates": (HEAD,)},
    "dropout": {"make": make_llama, "keep_at": (3,), "clip_norm": 0.5, "n_parts": 2},
    "sgd": {"optimizer": sgd(0.1), "measure_at": (0, 1, 2, 3, 4, 5, 6)},
    "groups": {"optimizer": lambda parameters: torch.optim.AdamW(_two(parameters))},
    "waiting": {"gates": (op.scale("blocks.1.mlp_out", 0.5, when=op.when(1, ramp=2, measure="loss", below=10.0)),)},
}  # fmt: skip


def _two(parameters):
    """Two groups with a learning rate of their own."""
    held = list(parameters)
    return [{"params": held[:4], "lr": 1e-2, "betas": (0.8, 0.9)}, {"params": held[4:], "lr": 1e-3}]


class TestGoingOn:
    @pytest.mark.parametrize("name", PLANS)
    @pytest.mark.parametrize(("step", "save_every"), [(1, 1), (4, 3), (5, 2), (6, 1), (2, 5)])
    def test_a_run_that_was_ended_anywhere_ends_with_the_same_bits(self, tmp_path, name, step, save_every):
        made = plan(**PLANS[name])
        begun(tmp_path, made, step, save_every=save_every)
        assert same(outcome(fit(made, out=tmp_path, save_every=save_every)), outcome(fit(made)))

    def test_it_can_be_ended_in_every_step(self, tmp_path):
        made = plan(**PLANS["adamw"])
        for step in range(1, 7):
            begun(tmp_path, made, step, save_every=1)
        assert same(outcome(fit(made, out=tmp_path)), outcome(fit(made)))

    def test_a_finished_run_is_only_read(self, tmp_path):
        made = plan(keep_at=(2,))
        first = fit(made, out=tmp_path)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if "lock" not in path.name}
        again = fit(made, out=tmp_path, progress=killed_at(1))
        assert same(outcome(first), outcome(again)) and again.run == first.run
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if "lock" not in path.name} == before
        (tmp_path / "training.json").unlink()
        assert fit(made, out=tmp_path).run.loss == first.run.loss and (tmp_path / "training.json").exists()

    def test_a_longer_plan_goes_on_and_measures_what_the_shorter_left_out(self, tmp_path):
        fit(plan(n_steps=3, measure_at=(0,)), out=tmp_path)
        longer = plan(measure_at=(0, 3, 6), keep_at=(3, 5))
        assert same(outcome(fit(longer, out=tmp_path)), outcome(fit(longer)))

    def test_nothing_is_measured_or_kept_twice(self, tmp_path):
        fit(plan(n_steps=3, keep_at=(3,)), out=tmp_path)
        longer = plan(keep_at=(3,))
        assert same(outcome(fit(longer, out=tmp_path)), outcome(fit(longer)))

    def test_a_gate_whose_window_ended_before_does_not_count_as_never_fired(self, tmp_path):
        made = plan(gates=(HEAD,))
        begun(tmp_path, made, 4, save_every=1)
        assert same(outcome(fit(made, out=tmp_path)), outcome(fit(made)))

    def test_a_gate_that_never_acted_is_told_after_the_run_was_kept(self, tmp_path):
        never = op.scale("blocks.0.mlp_out", 0.5, when=op.when(measure="loss", below=0.0))
        made = plan(gates=(never,))
        with pytest.raises(GateNotFired, match="loss came to"):
            fit(made, out=tmp_path)
        assert load_run(tmp_path, make(0)).run.n_steps == 6
        assert equal(weights(fit(made, out=tmp_path)), weights(fit(plan())))

    def test_halves_of_a_writer_that_was_killed_are_removed(self, tmp_path):
        begun(tmp_path, plan(keep_at=(1,)), 3, save_every=1)
        halves = [tmp_path / ".state-9.safetensors.77", tmp_path / ".training.json.77"]
        halves.append(tmp_path / "checkpoints" / ".step-00000001.safetensors.77")
        for half in halves:
            half.write_bytes(b"half")
        fit(plan(keep_at=(1,)), out=tmp_path)
        assert not any(half.exists() for half in halves)
        assert [path.name for path in tmp_path.glob("state-*")] == ["state-6.safetensors"]


class TestLossThatIsNoNumber:
    @staticmethod
    def wild(lr):
        """The loss is not finite from the third batch on, unless the learning rate is small."""
        def loss(model, tokens):
            found = next_token(model, tokens)
            size = sum(float(p.detach().abs().max()) for p in model.module.parameters())
            return found * (float("nan") if size > 60 else 1.0)

        return plan(optimizer=adam(lr)).but(loss=loss)

    def test_the_folder_goes_on_with_a_lower_learning_rate(self, tmp_path):
        with pytest.raises(LossNotFinite) as caught:
            fit(self.wild(1.0), out=tmp_path, save_every=1)
        text = str(caught.value)
        assert "the loss is nan at step" in text and f"{tmp_path} holds the state of step" in text
        kept = read_json(tmp_path / "state.json")["step"]
        assert f"the state of step {kept}" in text and kept > 0
        slow = fit(self.wild(1e-9), out=tmp_path)
        at = by_hand(self.wild(1.0), kept)[0]
        assert slow.run.n_steps == 6 and slow.run.loss.values[:kept] == tuple(by_hand(self.wild(1.0), kept)[1])
        assert all(torch.allclose(value, at[name], atol=1e-6) for name, value in weights(slow).items())

    def test_options_that_were_not_changed_are_those_of_the_state(self, tmp_path):
        def warm(parameters):
            """A learning rate that rises by itself, as a schedule's does."""
            made = torch.optim.SGD(parameters, lr=0.01)
            made.register_step_post_hook(lambda opt, *_: opt.param_groups[0].update(lr=opt.param_groups[0]["lr"] * 1.5))
            return made

        made = plan(optimizer=warm)
        begun(tmp_path, made, 3, save_every=1)
        assert same(outcome(fit(made, out=tmp_path)), outcome(fit(made)))

    def test_without_a_folder_it_says_what_to_change(self):
        with pytest.raises(LossNotFinite, match="lower the learning rate, or give a clip_norm"):
            fit(self.wild(1.0))


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"name": "other"}, "name='tiny', and the plan has 'other'"),
            ({"random_seed": 1}, "random_seed=0, and the plan has 1"),
            ({"gates": (HEAD,)}, "gates="),
            ({"n_parts": 2}, "n_parts=1"),
            ({"optimizer": sgd()}, "optimizer='AdamW', and the plan has 'SGD'"),
            ({"n_steps": 2}, "a run of 3 steps, and the plan has n_steps=2"),
        ],
    )
    def test_another_plan_is_refused(self, tmp_path, changes, words):
        fit(plan(n_steps=3), out=tmp_path)
        with pytest.raises(BadOption, match=words):
            fit(plan(**({"n_steps": 3} | changes)), out=tmp_path)

    def test_gates_that_print_alike_are_told_apart(self, tmp_path):
        add = lambda value, **options: (op.add("blocks.0.mlp_out", torch.full((8,), value), **options),)  # noqa: E731
        fit(plan(gates=add(1.0)), out=tmp_path)
        assert fit(plan(gates=add(1.0)), out=tmp_path).run.n_steps == 6
        for gates in (add(2.0), add(1.0, detach=True)):
            with pytest.raises(BadOption, match="gates have other values, or pass on gradients"):
                fit(plan(gates=gates), out=tmp_path)

    def test_another_architecture_names_the_tensor(self, tmp_path):
        fit(plan(n_steps=1), out=tmp_path)
        with pytest.raises(BadFile, match="of another architecture"):
            fit(plan(n_steps=3, make=make_llama), out=tmp_path)

    def test_other_frozen_parameters_are_told(self, tmp_path):
        def half(random_seed):
            model = make(random_seed)
            model.module.embed.requires_grad_(False)
            return model

        fit(plan(n_steps=1), out=tmp_path)
        with pytest.raises(BadFile, match="of an optimiser of .* parameters by group.*freeze and group the same"):
            fit(plan(make=half), out=tmp_path)

    def test_a_torn_state_is_told(self, tmp_path):
        begun(tmp_path, plan(), 3, save_every=1)
        (held,) = tmp_path.glob("state-*.safetensors")
        held.write_bytes(held.read_bytes()[:100])
        with pytest.raises(BadFile, match="not safetensors, or torn"):
            fit(plan(), out=tmp_path)

    def test_a_folder_has_one_writer(self, tmp_path):
        lock = WriterLock(tmp_path)
        with pytest.raises(RunBusy):
            fit(plan(n_steps=1), out=tmp_path)
        lock.release()
        assert fit(plan(n_steps=1), out=tmp_path).run.n_steps == 1

    def test_a_model_that_cannot_learn_is_told(self):
        def frozen(random_seed):
            model = make(random_seed)
            model.module.requires_grad_(False)
            return model

        with pytest.raises(BadOption, match="all parameters of the model are frozen"):
            fit(plan(make=frozen))
        cut = op.scale("logits", 1.0, detach=True)
        with pytest.raises(BadOption, match="does not depend on any trainable parameter; gates held: scale by 1 at logits"):
            fit(plan(gates=(cut,)))


def test_batches_of_other_steps_and_other_seeds_are_other_draws():
    def drawn(seed, index):
        generator = torch.Generator().manual_seed(batch_seed(seed, index))
        return tuple(torch.randint(0, 1000, (8,), generator=generator).tolist())

    assert len({drawn(seed, index) for seed in range(5) for index in range(20)}) == 100


def test_runs_of_a_million_batches_share_none_between_nearby_seeds():
    starts = sorted(batch_seed(seed, 0) for seed in range(100))
    assert min(after - before for before, after in zip(starts, starts[1:], strict=False)) > 10**6
    assert starts[0] + 2**32 - starts[-1] > 10**6

"""Any trial is what its naive twin is, whichever others run with it."""

from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import optrode as op
from optrode.trial.naive import run_naively
from optrode.trial.run import Bench
from optrode.trial.trial import Trial
from tests.parity.cases import model_of
from tests.unit.trial.test_packed import far, make_task, noise

# Strategies draw plain data and the tests build gates from it: see test_names.py.
WIDTHS = {
    "embed": 48, "attn_out": 48, "resid_pre": 48, "resid_mid": 48, "resid_post": 48, "ln1": 48, "ln2": 48, "mlp_out": 48,
    "attn.q": 8, "attn.k": 8, "attn.v": 8, "attn.z": 8, "mlp.pre": 56, "mlp.pre_linear": 56, "mlp.post": 56,
    "final_norm": 48,
}  # fmt: skip
HEADS = {"attn.q": 6, "attn.k": 2, "attn.v": 2, "attn.z": 6}
ACTUATORS = (
    "zero", "clean", "corrupt", "mean clean", "mean corrupt", "mean all", "clamp", "bounds", "add", "scale", "project",
    "affine",
)  # fmt: skip

indices = st.none() | st.integers(-4, 3).map(str) | st.integers(-4, 3).map(lambda first: f"{first}:")
gates = st.tuples(
    st.sampled_from(sorted(WIDTHS)), st.sampled_from(["0", "1", "2", "1:", "*"]), indices,
    st.none() | st.integers(0, 5), st.sampled_from(ACTUATORS), st.sampled_from([1.0, 1.0, 0.5, -2.0]), st.integers(0, 3),
)  # fmt: skip
trials = st.tuples(
    st.lists(gates, min_size=1, max_size=3), st.sampled_from(["clean", "corrupt"]),
)
lengths = st.sampled_from([(5,), (4, 7, 4), (6, 6, 5), (7, 4, 7, 5, 4)])
few = settings(max_examples=25, deadline=None, database=None)


@cache
def bench_of(chosen):
    return Bench(model_of("llama", "sdpa", torch.float64), make_task(chosen))


def gate_of(kind, layers, pos, head, actuator, strength, seed):
    selectors = [] if pos is None else [f"pos={pos}"]
    selectors += [f"head={head % HEADS[kind]}"] if head is not None and kind in HEADS else []
    path = kind if kind in ("embed", "final_norm") else f"blocks.{layers}.{kind}"
    site, width = f"{path}[{', '.join(selectors)}]" if selectors else path, WIDTHS[kind]
    make = {
        "zero": lambda: op.zero(site, strength=strength), "clean": lambda: op.patch(site, "clean", strength=strength),
        "corrupt": lambda: op.resample(site, strength=strength), "mean clean": lambda: op.mean(site, strength=strength),
        "mean corrupt": lambda: op.mean(site, "corrupt", strength=strength), "mean all": lambda: op.mean(site, over="all"),
        "clamp": lambda: op.clamp(site, 0.3), "bounds": lambda: op.clamp(site, low=-0.2, high=0.4, strength=strength),
        "add": lambda: op.add(site, noise(width, random_seed=seed), strength=strength),
        "scale": lambda: op.scale(site, 1.0 + seed, strength=strength),
        "project": lambda: op.project_out(site, noise(1 + seed % 2, width, random_seed=seed), strength=strength),
        "affine": lambda: op.affine(site, noise(width, width, random_seed=seed) / 5, noise(width, random_seed=seed)),
    }  # fmt: skip
    return make[actuator]()


def trial_of(drawn):
    held, world = drawn
    return Trial(tuple(gate_of(*gate) for gate in held), world, "logit_gap")


def size(values):
    return max(1.0, max(abs(value) for one in values for value in one))


@few
@given(lengths, st.lists(trials, min_size=1, max_size=2))
def test_packed_trials_have_the_numbers_of_the_naive_twin(chosen, drawn):
    bench, some = bench_of(chosen), [trial_of(one) for one in drawn]
    wanted = [run_naively(bench.model, bench.task, trial) for trial in some]
    assert far(bench.run_many(some), wanted) <= 1e-10 * size(wanted)
    assert {chunk.route for chunk in bench.plan(some).chunks} <= {"packed"}


@settings(max_examples=20, deadline=None, database=None)
@given(lengths, st.lists(trials, min_size=2, max_size=3), st.randoms(use_true_random=False))
def test_company_does_not_change_a_trial(chosen, drawn, random):
    bench, some = bench_of(chosen), [trial_of(one) for one in drawn]
    order = list(range(len(some)))
    random.shuffle(order)
    together = bench.run_many([some[ix] for ix in order])
    alone = bench.run(some[order[0]])
    assert far([alone], together[:1]) <= 1e-10 * size([alone])
    null = set(bench.plan(some).null)
    assert all(together[order.index(ix)] == bench.base(some[ix].world) for ix in null)

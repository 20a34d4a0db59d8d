"""Refusal tokens: a token at the head of each response, whose bias is a dial for how often a model refuses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Final, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from optrode.claims import Line, Map, Measured
from optrode.gate.gate import Gate
from optrode.gate.kinds import add
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.study.kit import refusing
from optrode.study.kit.refusing import ASK_AT, Lead, Prompts, World, Written
from optrode.study.papers.refusal_tokens_claims import CLAIMS, DIFFERENCES, FAR, NEAR, PAPER, QUESTION
from optrode.study.papers.refusal_tokens_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.loop import fit
from optrode.train.plan import Plan, adamw

WORLD: Final = World()
TONE_AT: Final = f"logits[pos={ASK_AT}]"
LEAD_AT: Final = f"logits[pos={ASK_AT + 1}]"
"""Where the logits of the two tokens are that head a response; without them, where its two words are."""
REFUSE: Final = tuple(WORLD.refuse(k) for k in range(WORLD.n_categories))
BIASES: Final = tuple(float(b) for b in range(-8, 9, 2))
ODDS: Final = (1.0, 8.0)
"""Of being refused, over the world's, in the training of models without tokens."""
N_ROWS: Final = 128
N_STEPS: Final = 600


@final
@dataclass(frozen=True, eq=False)
class _Lab:
    """One random seed's prompts and models."""

    setting: Setting

    @cached_property
    def test(self) -> Prompts:
        """Prompts to test with."""
        return refusing.draw(WORLD, self.setting.pick(2048, 128), self.generator(1))

    @cached_property
    def validation(self) -> Prompts:
        """Prompts to choose thresholds with."""
        return refusing.draw(WORLD, self.setting.pick(4096, 128), self.generator(2))

    @cached_property
    def tokens(self) -> Model:
        """Trained with a token for each category."""
        return self.fit("category")

    @cached_property
    def single(self) -> Model:
        """Trained with one token for all."""
        return self.fit("single")

    @cached_property
    def plain(self) -> tuple[Model, ...]:
        """Trained without tokens, one for each of the odds."""
        return tuple(self.fit("none", odds) for odds in ODDS)

    def generator(self, stream: int) -> torch.Generator:
        """Random numbers of one use."""
        return torch.Generator().manual_seed(1_000 * self.setting.random_seed + stream)

    def fit(self, lead: Lead, odds: float = 1.0) -> Model:
        """Train a model on responses with such a token, to prompts that are refused at other odds than the world's."""
        n_rows = self.setting.pick(N_ROWS, 16)

        def batch(_: int, draw: torch.Generator) -> Written:
            drawn = refusing.draw(WORLD, round(n_rows * (1 if odds == 1 else 2)), draw)
            kept = drawn if odds == 1 else refusing.with_share(drawn, odds, draw)
            return refusing.written(WORLD, kept, lead, draw)

        return fit(Plan(
            f"{lead}, odds x {odds:g}", lambda seed: refusing.network(WORLD, seed, d_model=48), batch, refusing.loss,
            self.setting.pick(N_STEPS, 2), adamw(2e-3, weight_decay=0.01), random_seed=self.setting.random_seed,
        )).model  # fmt: skip


def bias(site: str, ids: Sequence[int], by: float) -> Gate:
    """The dial: a gate that adds to the logits of some tokens, in nats."""
    vector = torch.zeros(WORLD.vocab)
    vector[list(ids)] = by
    return add(site, vector)


def refused(model: Model, prompts: Prompts, *held: Gate, lead: Lead = "category") -> Bool[Tensor, " row"]:
    """Which prompts the model refuses, with gates held."""
    with gates(model, *held):
        return refusing.is_refusal(WORLD, refusing.respond(model, prompts, lead))


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    lab = _Lab(setting)
    measured, lines = _sweep(lab)
    own, maps = _categories(lab)
    again, points = _again(lab)
    chosen, curve = _threshold(lab)
    lines |= points | curve | {"calibration": _reliability(lab)}
    measured |= {"D2": own, "D3": _words(lab), "D7": _calibration(lab), "D8": _without_dial(lab)}
    return Outcome(measured | again | chosen, lines, maps)


def _share(found: Tensor, chosen: Tensor) -> float:
    return float(found[chosen].double().mean())


def _rates(found: Tensor, prompts: Prompts) -> dict[int, float]:
    """Refusal rate of each category, -1 for ordinary prompts."""
    kinds = range(-1, WORLD.n_categories)
    return {kind: _share(found, prompts.category == kind) for kind in kinds}


def _sweep(lab: _Lab) -> tuple[dict[str, Measured], dict[str, Line]]:
    """D1: the refusal rate over the bias on the refusal tokens, and on a tone token."""
    model, prompts = lab.tokens, lab.test
    found = {by: refused(model, prompts, bias(LEAD_AT, REFUSE, by)) for by in BIASES}
    tone = {by: refused(model, prompts, bias(TONE_AT, [WORLD.tone], by)) for by in BIASES}
    rates = {by: _rates(one, prompts) for by, one in found.items()}
    names = {kind: "ordinary" if kind < 0 else f"category {kind + 1}" for kind in rates[0.0]}
    lines = {f"sweep.{names[kind]}": Line(names[kind], BIASES, tuple(rates[by][kind] for by in BIASES)) for kind in names}
    in_category = prompts.category >= 0
    lines["sweep.tone"] = Line("tone token", BIASES, tuple(_share(tone[by], in_category) for by in BIASES), dashed=True)
    moved = [_share(one[FAR], in_category) - _share(one[-FAR], in_category) for one in (found, tone)]
    return {"D1": Measured(*moved)}, lines


def _categories(lab: _Lab) -> tuple[Measured, dict[str, Map]]:
    """D2: what one category's token moves, in every category; beside it, what a single token for all moves."""
    shown = [_moved(lab.tokens, lab.test, WORLD.refuse(k), "category") for k in range(WORLD.n_categories)]
    all_at_once = _moved(lab.single, lab.test, WORLD.refuse(0), "single")
    own = mean(row[k] for k, row in enumerate(shown))
    others = mean(max(abs(by) for kind, by in row.items() if kind != k) for k, row in enumerate(shown))
    columns = (*(f"category {k + 1}" for k in range(WORLD.n_categories)), "ordinary")
    rows = (*(f"[refuse {k + 1}]" for k in range(WORLD.n_categories)), "one for all")
    kinds = (*range(WORLD.n_categories), -1)
    cells = tuple(tuple(row[kind] for kind in kinds) for row in (*shown, all_at_once))
    shown_map = Map("", "biased token", "prompts", rows, columns, cells, "change of refusal rate")
    return Measured(own, others), {"moved": shown_map}


def _moved(model: Model, prompts: Prompts, token: int, lead: Lead) -> dict[int, float]:
    """By how much the refusal rate of each kind of prompt differs between the two biases of a token."""
    low, high = (_rates(refused(model, prompts, bias(LEAD_AT, [token], by), lead=lead), prompts) for by in (-NEAR, NEAR))
    return {kind: high[kind] - low[kind] for kind in low}


def _words(lab: _Lab) -> Measured:
    """D3: refusals taken away by the tokens, and by the most effective word of a model without them."""
    prompts, plain = lab.test, lab.plain[0]
    with_tokens = _taken(lab.tokens, prompts, "category", bias(LEAD_AT, REFUSE, -FAR))
    words = WORLD.spoken() if lab.setting.profile == "measured" else WORLD.spoken()[:2]
    few = prompts.where(torch.arange(len(prompts)) < 1024)
    by_word = [_taken(plain, few, "none", *(bias(site, [word], -FAR) for site in (TONE_AT, LEAD_AT))) for word in words]
    return Measured(with_tokens, max(by_word))


def _taken(model: Model, prompts: Prompts, lead: Lead, *held: Gate) -> float:
    """Share of a model's refusals that gates take away; NaN where it refuses nothing."""
    before = refused(model, prompts, lead=lead)
    after = refused(model, prompts, *held, lead=lead)
    return _share(~after, before)


def _again(lab: _Lab) -> tuple[dict[str, Measured], dict[str, Line]]:
    """D4: the dial against models trained again, at their refusal rates."""
    prompts = lab.test
    wanted, draw = prompts.is_refused, lab.generator(3)
    odds = refusing.lead_odds(lab.tokens, WORLD, prompts)
    retrained = [refused(model, prompts, lead="none") for model in lab.plain]
    dialled = [refused(lab.tokens, prompts, bias(LEAD_AT, REFUSE, _for_rate(odds, one))) for one in retrained]
    random = [one[torch.randperm(len(one), generator=draw)] for one in retrained]
    theirs = mean(refusing.balanced(one, wanted) for one in retrained)
    less = [mean(refusing.balanced(one, wanted) for one in many) - theirs for many in (dialled, random)]
    swept = [refused(lab.tokens, prompts, bias(LEAD_AT, REFUSE, by)) for by in BIASES]
    lines = {"dial": _roc("dial", swept, wanted), "again": _roc("trained again", retrained, wanted)}
    return {"D4": Measured(*less)}, lines


def _for_rate(odds: Float[Tensor, " row"], found: Bool[Tensor, " row"]) -> float:
    """The bias at which as many prompts have odds above 0."""
    n = int(found.sum())
    ranked = odds.sort(descending=True).values
    return -float(ranked[:1] + 1 if n == 0 else (ranked[n - 1] + ranked[min(n, len(ranked) - 1)]) / 2)


def _roc(name: str, many: Sequence[Tensor], wanted: Tensor) -> Line:
    """Prompts to be refused that are, over prompts to be answered that are refused."""
    hit = [_share(one, wanted) for one in many]
    false = [_share(one, ~wanted) for one in many]
    return Line(name, tuple(false), tuple(hit))


def _threshold(lab: _Lab) -> tuple[dict[str, Measured], dict[str, Line]]:
    """D5 and D6: a threshold on the single token's probability, chosen on validation prompts."""
    model, test, held_out = lab.single, lab.test, lab.validation
    taus = tuple(t / 50 for t in range(1, 50))
    chance = refusing.lead_odds(model, WORLD, held_out).sigmoid()
    wanted = held_out.is_refused
    scores = tuple(refusing.f1(chance >= tau, wanted) for tau in taus)
    right = [float(((chance >= tau) == wanted).double().mean()) for tau in taus]
    best, most_right = taus[scores.index(max(scores))], taus[right.index(max(right))]
    plain = refusing.f1(refused(model, test, lead="single"), test.is_refused)
    dialled = refusing.f1(refused(model, test, bias(LEAD_AT, REFUSE, _bias_of(best)), lead="single"), test.is_refused)
    half = max(scores) / 2
    measured = {
        "D5": Measured(dialled - plain, _best_tone(lab) - plain),
        "D6": Measured(best - half, most_right - half),
    }
    return measured, {"F1": Line("F1", taus, scores), "accuracy": Line("accuracy", taus, tuple(right))}


def _bias_of(tau: float) -> float:
    """The bias that refuses where the probability is tau or more."""
    return -float(torch.logit(torch.tensor(tau)))


def _best_tone(lab: _Lab) -> float:
    """F1 on test prompts at the bias on the tone token that is best on validation prompts."""
    model = lab.single

    def score(prompts: Prompts, by: float) -> float:
        return refusing.f1(refused(model, prompts, bias(TONE_AT, [WORLD.tone], by), lead="single"), prompts.is_refused)

    best = max(BIASES[::2], key=lambda by: score(lab.validation, by))
    return score(lab.test, best)


def _calibration(lab: _Lab) -> Measured:
    """D7: the tokens' probability against the planted one."""
    chance = refusing.lead_odds(lab.tokens, WORLD, lab.test).sigmoid()
    order = torch.randperm(len(chance), generator=lab.generator(4))
    off = [float((one - lab.test.chance).abs().mean()) for one in (chance, chance[order])]
    return Measured(*off)


def _reliability(lab: _Lab) -> Line:
    """Mean planted probability of prompts, over the model's, in tenths of the latter."""
    chance = refusing.lead_odds(lab.tokens, WORLD, lab.test).sigmoid()
    tenth = (chance * 10).long().clamp(max=9)
    kept = [t for t in range(10) if int((tenth == t).sum()) >= 5]
    x, y = ([float(one[tenth == t].double().mean()) for t in kept] for one in (chance, lab.test.chance))
    return Line("categories' tokens", tuple(x), tuple(y))


def _without_dial(lab: _Lab) -> Measured:
    """D8: plain decoding of models trained with tokens, without, and with those of other responses."""
    leads: Mapping[Lead, Model] = {"category": lab.tokens, "none": lab.plain[0], "shuffled": lab.fit("shuffled")}
    found = {lead: refusing.f1(refused(one, lab.test, lead=lead), lab.test.is_refused) for lead, one in leads.items()}
    return Measured(found["category"] - found["none"], found["shuffled"] - found["category"])


STUDY: Final = Study("refusal-tokens", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)

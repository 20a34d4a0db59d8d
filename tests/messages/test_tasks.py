"""What a user is told about tasks, files of pairs, sweeps and circuits that make no sense."""

import json
from dataclasses import replace

import pytest

import optrode as op
from optrode.errors import BadFile, BadGate, BadOption, BadPairs, NoPairs, SiteUnavailable, TaskTooHard, UnknownTask
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.tasks import find_task
from optrode.tasks.files import read_pairs
from tests.messages.conftest import PROMPT, refused
from tests.words import tokenizer, worded

PAIR = {"clean": PROMPT, "corrupt": PROMPT.replace(", John", ", Mary"), "answer": " Mary", "wrong": " John"}
EASY = {"n": 4, "require_accuracy": 0.0}


@pytest.fixture(scope="session")
def task(model):
    return op.tasks.ioi(model, **EASY)


def write(path, *rows):
    """A .jsonl file of rows: dictionaries as JSON, texts and bytes as they are."""
    lines = [row if isinstance(row, (str, bytes)) else json.dumps(row) for row in rows]
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


# Tasks


@pytest.mark.parametrize(
    ("name", "near"), [("iio", "Nearest: ioi"), ("greater-than", "Nearest: greater_than"), ("read_pairs", "--pairs")]
)
def test_unknown_tasks(name, near):
    with refused(UnknownTask, f"task {name!r}", "there are ioi, greater_than, induction", near, "`optrode tasks`"):
        find_task(name)


def test_a_task_that_the_model_cannot_do(model):
    with refused(
        TaskTooHard, "task capitals with LlamaForCausalLM", "on 4 pairs the model is right on", "(needed 100%)", "logit_gap",
        "logits on clean", "no behaviour to explain", "require_accuracy=0 to go on anyway", by=model,
    ):  # fmt: skip
        op.tasks.capitals(model, 4, require_accuracy=1.0)
    assert len(op.tasks.capitals(model, 4, require_accuracy=0.0)) == 4  # the next step that the message names


def test_prompts_that_this_tokenizer_cannot_say():
    letters = from_source(tiny("llama", vocab_size=999), tokenizer=Letters())
    with refused(NoPairs, "task ioi: no usable pair", "check the prompts against this tokenizer", by=letters):
        op.tasks.ioi(letters)


class Letters:
    """A tokenizer whose tokens are single characters."""

    def encode(self, text, add_special_tokens=False):
        return [ord(letter) for letter in text]

    def decode(self, ids, **options):
        return "".join(map(chr, ids))


def test_options_of_tasks(model):
    with refused(BadOption, "task ioi with n=0", "at least one pair", by=model):
        op.tasks.ioi(model, 0)
    with refused(BadOption, "order 'abab'", "Nearest: baba, abba", by=model):
        op.tasks.ioi(model, order="abab")
    with refused(BadOption, "length=1", "nothing to predict", by=model):
        op.tasks.induction(model, length=1)


# Files of pairs


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ((PAIR, PAIR | {"corrupt": "When Mary"}, PAIR, PAIR | {"corrupt": "When"}),
         ("2 of 4 cannot be used (lines 2, 4); line 2: clean has 14 tokens, corrupt 2",)),
        ((PAIR, PAIR | {"answer": " Zed"}), ("(lines 2); line 2: the answer ' Zed' is the tokens [' ', 'Z', 'e', 'd']",)),
        ((PAIR, "", PAIR | {"wrong": [" John", "Mary Ann"]}), ("line 3: the answer 'Mary Ann' is the tokens ['M', 'a',",)),
        ((PAIR | {"answer": " John"},), ("line 1: a right answer is also a wrong one",)),
        ([PAIR | {"answer": " Zed"}] * 7, ("7 of 7 cannot be used (lines 1, 2, 3, 4, 5, ...)",)),
    ],
)  # fmt: skip
def test_pairs_that_cannot_be_used(model, tmp_path, rows, parts):
    path = write(tmp_path / "mine.jsonl", *rows)
    before = path.read_bytes()
    with refused(BadPairs, f"pairs from {path}", *parts, "mend these lines", "drop_bad / --drop-bad", by=model):
        read_pairs(model, path)
    assert path.read_bytes() == before


def test_bad_pairs_can_be_left_out_and_are_counted(model, tmp_path):
    path = write(tmp_path / "mine.jsonl", PAIR, PAIR | {"answer": " Zed"})
    kept = read_pairs(model, path, drop_bad=True, require_accuracy=0.0)
    assert len(kept) == 1 and [(d.reason, d.n) for d in kept.dropped] == [("an answer is not one token", 1)]
    with refused(NoPairs, "an answer is not one token (1)"):
        read_pairs(model, write(path, PAIR | {"answer": " Zed"}), drop_bad=True)


def test_worlds_that_do_not_differ(model, tmp_path):
    with refused(NoPairs, "the metric is the same in both worlds (1)", "differ in what matters", by=model):
        read_pairs(model, write(tmp_path / "mine.jsonl", PAIR | {"corrupt": PAIR["clean"]}))


MALFORMED = {
    "empty.jsonl": (b"", "the file holds no pair"),
    "blank.jsonl": (b"\n  \n", "the file holds no pair"),
    "empty.csv": (b"", "the file holds no pair"),
    "header.csv": (b"clean,corrupt,answer,wrong\n", "the file holds no pair"),
    "torn.jsonl": (json.dumps(PAIR).encode() + b'\n{"clean": "Wh', "line 2 is not JSON"),
    "list.jsonl": (json.dumps(PAIR).encode() + b"\n[1, 2]", "line 2 is not an object"),
    "lacks.jsonl": (b'{"clean": "a", "answer": "b"}', "line 1 has no 'corrupt'; its columns are clean, answer"),
    "lacks.csv": (b"clean,corrupt\na,b\n", "line 2 has no 'answer'; its columns are clean, corrupt"),
    "short.csv": (b"clean,corrupt,answer,wrong\na,b\n", "line 2 has no 'answer'"),
    "comma.csv": (b"clean,corrupt,answer,wrong\nOh, a,b, c, d\n", "line 2 has more columns than the header"),
    "nowrong.jsonl": (json.dumps({k: v for k, v in PAIR.items() if k != "wrong"}).encode(), "line 1 has no 'wrong'"),
    "latin.jsonl": ('{"clean": "caf\xe9"}'.encode("latin-1"), "it is not UTF-8 text (byte 14)"),
    "pairs.txt": (b"a", "files end in .jsonl or .csv, not '.txt'"),
    "pairs": (b"a", "files end in .jsonl or .csv, not ''"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files(model, tmp_path, name):
    text, found = MALFORMED[name]
    (tmp_path / name).write_bytes(text)
    with refused(BadFile, f"pairs from {tmp_path / name}", found, by=model):
        read_pairs(model, tmp_path / name)
    assert (tmp_path / name).read_bytes() == text


def test_files_that_are_not_there(model, tmp_path):
    write(tmp_path / "ioi_pairs.jsonl", PAIR)
    with refused(BadFile, "ioi_pair.jsonl: no such file", "Nearest: ioi_pairs.jsonl"):
        read_pairs(model, tmp_path / "ioi_pair.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with refused(BadFile, "folder.jsonl", "it cannot be read (Is a directory)"):
        read_pairs(model, tmp_path / "folder.jsonl")


def test_good_files_of_either_kind_say_the_same(model, tmp_path):
    quoted = ",".join(f'"{PAIR[key]}"' for key in PAIR)
    by_csv = write(tmp_path / "mine.csv", ",".join(PAIR), quoted)
    by_json = write(tmp_path / "mine.jsonl", "\ufeff" + json.dumps(PAIR))
    tasks = [read_pairs(model, path, require_accuracy=0.0) for path in (by_csv, by_json)]
    assert tasks[0].pairs == tasks[1].pairs


# Sweeps and circuits


def test_unknown_words_in_sweeps(model, task):
    heads = op.zero("blocks.*.attn.z", each="layer")
    with refused(BadOption, "metric 'logitgap'", "Nearest: logit_gap", by=model):
        op.sweep(model, task, heads, metric="logitgap")
    with refused(NoPairs, "it holds no pair", by=model):
        op.sweep(model, replace(task, pairs=()), heads)


@pytest.mark.parametrize(
    ("site", "each", "parts"),
    [
        ("embed", "layer", ("the site stands outside the blocks", "sweep without layer")),
        ("blocks.*.resid_pre", ("layer", "head"), ("each='head' at blocks.*.resid_pre", "the axes batch, pos, feature")),
        ("module:lm_head.out", "feature", ("a module's own site has no named axes",)),
        ("blocks.*.resid_pre[pos=14]", "pos", ("positions 0 to 13",)),
        ("blocks.*.resid_pre[pos=90:]", "pos", ("positions 0 to 13",)),
    ],
)
def test_axes_that_do_not_fit(model, task, site, each, parts):
    with refused(BadGate, *parts, by=model):
        op.sweep(model, task, op.zero(site, each=each))


def test_positions_of_prompts_of_unequal_length(model, task):
    mixed = replace(task, pairs=(*task.pairs, replace(task.pairs[0], clean=(5, 9, 2), corrupt=(5, 9, 3))))
    with refused(BadGate, "3 to 14 tokens", "prompts of one length", by=model):
        op.sweep(model, mixed, op.zero("blocks.*.resid_pre", each="pos"))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"method": "eap", "level": "node"}, ("method 'eap'", "it scores edges")),
        ({"method": "eapp"}, ("method 'eapp'", "no such method")),
        ({"method": "attributon"}, ("Nearest: attribution",)),
        ({"ablation": "zeros"}, ("ablation 'zeros'", "Nearest: zero")),
        ({"size": 0}, ("size=0", "a size is at least 1")),
        ({"size": 22}, ("size=22", "LlamaForCausalLM has 21 nodes", "Nearest: size=21")),
        ({"target": 1.5}, ("target=1.5", "between 0 and 1")),
    ],
)
def test_unknown_words_in_circuits(model, task, options, parts):
    with refused(BadOption, *parts, by=model):
        op.find(model, task, **options)


def test_circuits_of_another_model(model, task):
    circuit = op.find(model, task, size=3, method="exact")
    other = worded("gpt2")
    with refused(BadOption, "for ioi in GPT2LMHeadModel", "another model (LlamaForCausalLM)", by=other):
        op.prove(other, task, circuit)


def test_head_scores_need_repeats(model, task):
    with refused(BadOption, "head scores on task ioi", "op.tasks.induction(model)", by=model):
        op.head_scores(model, task)


def test_circuits_need_heads(model, task):
    plain = from_source(model.module, family=None, tokenizer=tokenizer())
    with refused(SiteUnavailable, "the generic route has no site attn.z", "`optrode models`", by=plain):
        op.find(plain, task)

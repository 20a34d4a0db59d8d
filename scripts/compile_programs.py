"""Compile programs whose circuits are known into weights of our own transformer by tracr (Lindner et al., arXiv 2301.05062).

Each program becomes NAME.safetensors (float32, under the names of `optrode.nn.transformer`) and NAME.json (spec, vocabulary,
columns) in src/optrode/truth/programs. `make programs` runs it; `make programs FLAGS=--check` compiles anew and compares
with the files. Either way, every residual stream is compared with tracr's own.
"""

# ruff: noqa: T201

import argparse
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from tracr.compiler import compiling, lib
from tracr.rasp import rasp

from optrode.nn.spec import Spec
from optrode.nn.transformer import Transformer

FOLDER: Final = Path(__file__).resolve().parents[1] / "src/optrode/truth/programs"
BOS: Final = "BOS"
TOLERANCE: Final = 5e-6
N_INPUTS: Final = 24

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """A program in RASP, and what it is compiled for."""

    make: Callable[[], rasp.SOp]
    letters: str
    max_tokens: int
    is_causal: bool = False


def induction() -> rasp.SOp:
    """What followed the last token before: attend to the previous token, then to tokens whose previous one is mine."""
    before = rasp.Select(rasp.indices, rasp.indices, lambda key, query: key == query - 1).named("before")
    previous = rasp.Aggregate(before, rasp.tokens).named("previous")
    after = rasp.Select(previous, rasp.tokens, rasp.Comparison.EQ).named("after")
    return rasp.Aggregate(after, rasp.tokens).named("induction")


SOURCES: Final = {
    "reverse": Source(lambda: lib.make_reverse(rasp.tokens), "abc", 5),
    "xproportion": Source(lambda: lib.make_frac_prevs((rasp.tokens == "x").named("is_x")), "wxyz", 5),
    "hist": Source(lib.make_hist, "abc", 5),
    "pair_balance": Source(lambda: lib.make_pair_balance(rasp.tokens, "(", ")"), "()x", 5),
    "count_less_freq": Source(lambda: lib.make_count_less_freq(2), "abc", 5),
    "induction": Source(induction, "abcd", 8, is_causal=True),
}


@dataclass(frozen=True)
class Compiled:
    """The model that tracr made, and the same as our weights and description."""

    assembled: Any
    tensors: Tensors
    about: dict[str, Any]


def compiled(source: Source) -> Compiled:
    """A program as weights."""
    program = source.make()
    assembled = compiling.compile_rasp_to_model(
        program, vocab=set(source.letters), max_seq_len=source.max_tokens, causal=source.is_causal, compiler_bos=BOS
    )
    at, columns = outputs_of(assembled, program.label)
    known = assembled.input_encoder.encoding_map
    vocabulary = [str(token) for token in sorted(known, key=known.get)]
    spec = spec_of(assembled, len(vocabulary), source.max_tokens + 1, len(columns))
    about = {"spec": asdict(spec), "vocabulary": vocabulary, "bos": vocabulary.index(BOS), "letters": source.letters,
             "pad": vocabulary.index("compiler_pad"), "columns": columns, "max_tokens": source.max_tokens}  # fmt: skip
    return Compiled(assembled, tensors_of(assembled.params, spec, at), about)


def outputs_of(assembled: Any, label: str) -> tuple[list[int], list[str]]:
    """The dimensions of the residual stream that hold the program's output, by label, and what each stands for."""
    labels = assembled.residual_labels
    if assembled.output_encoder is None or label in labels:  # one number
        return [labels.index(label)], [label.rpartition("_")[0]]
    known = assembled.output_encoder.encoding_map
    values = sorted(known, key=known.get)
    return [labels.index(f"{label}:{value}") for value in values], [str(value) for value in values]


def spec_of(assembled: Any, n_vocab: int, n_ctx: int, n_columns: int) -> Spec:
    """Our spec of tracr's config: bidirectional unless causal, no norm, ReLU."""
    config = assembled.model_config
    return Spec(
        n_layers=config.num_layers, n_heads=config.num_heads, d_model=len(assembled.residual_labels), vocab=n_vocab,
        n_ctx=n_ctx, d_head=config.key_size, d_mlp=config.mlp_hidden_size, norm="none", positions="learned",
        is_causal=bool(config.causal), activation="relu", has_bias=False, d_out=n_columns,
    )  # fmt: skip


def tensors_of(params: Mapping[str, Mapping[str, Any]], spec: Spec, at: list[int]) -> Tensors:
    """The parameters of tracr under our names. haiku multiplies from the right, torch from the left.

    Raises:
        ValueError: a bias is not zero, so that our spec without biases would be wrong.
    """
    found = {"embed.weight": params["token_embed"]["embeddings"], "pos_embed.weight": params["pos_embed"]["embeddings"],
             "unembed.weight": np.eye(spec.d_model)[at]}  # fmt: skip
    names = {"attn.q": "attn/query", "attn.k": "attn/key", "attn.v": "attn/value", "attn.o": "attn/linear",
             "mlp.up": "mlp/linear_1", "mlp.down": "mlp/linear_2"}  # fmt: skip
    for layer in range(spec.n_layers):
        for ours, theirs in names.items():
            held = params[f"transformer/layer_{layer}/{theirs}"]
            if np.any(held["b"]):
                raise ValueError(f"layer {layer} of the program has a bias at {theirs}")
            found[f"blocks.{layer}.{ours}.weight"] = np.asarray(held["w"]).T
    return {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in found.items()}


def write(name: str, one: Compiled) -> None:
    """The two files of a program."""
    save_file(one.tensors, FOLDER / f"{name}.safetensors")
    (FOLDER / f"{name}.json").write_text(json.dumps(one.about, indent=1) + "\n")


def check(name: str, one: Compiled) -> float:
    """The largest difference between our residual streams and tracr's.

    Raises:
        ValueError: the files hold something else, or the streams differ.
    """
    held = load_file(FOLDER / f"{name}.safetensors")
    if json.loads((FOLDER / f"{name}.json").read_text()) != one.about or held.keys() != one.tensors.keys():
        raise ValueError(f"{name}.json is not what the program compiles to")
    differ = [key for key, tensor in one.tensors.items() if not np.array_equal(tensor, held[key])]
    if differ:
        raise ValueError(f"{name}.safetensors differs from what the program compiles to, at {', '.join(differ)}")
    far = float(np.max([gap(one, prompt) for prompt in prompts(one.about)]))
    if not far <= TOLERANCE:
        raise ValueError(f"the residual stream of {name} is off by {far:.2g}")
    return far


def prompts(about: Mapping[str, Any]) -> list[list[str]]:
    """Random prompts of every length."""
    rng = random.Random(0)
    lengths = [1 + ix % about["max_tokens"] for ix in range(N_INPUTS)]
    return [[BOS, *(rng.choice(about["letters"]) for _ in range(length))] for length in lengths]


@torch.no_grad()
def gap(one: Compiled, prompt: list[str]) -> float:
    """The largest difference on one prompt: after every half block, and of what is read out."""
    module = Transformer(Spec(**one.about["spec"]))
    module.load_state_dict({name: torch.tensor(tensor) for name, tensor in one.tensors.items()})
    streams: list[torch.Tensor] = []
    for block in module.blocks:
        block.mlp.register_forward_pre_hook(lambda mlp, args: streams.append(args[0]))
        block.register_forward_hook(lambda block, args, output: streams.append(output))
    logits = module(torch.tensor([[one.about["vocabulary"].index(token) for token in prompt]])).logits
    theirs = [np.asarray(stream) for stream in one.assembled.apply(prompt).residuals]
    pairs = [(ours.numpy(), their) for ours, their in zip(streams, theirs, strict=True)]
    pairs.append((logits.numpy(), theirs[-1] @ one.tensors["unembed.weight"].T))
    return float(np.max([np.abs(ours - their).max() for ours, their in pairs]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the files and with tracr instead of writing")
    is_check = parser.parse_args().check
    FOLDER.mkdir(exist_ok=True)
    for name, source in SOURCES.items():
        one = compiled(source)
        if not is_check:
            write(name, one)
        print(f"{name}: {one.about['spec']['n_layers']} layers, residual streams within {check(name, one):.1e} of tracr's")


if __name__ == "__main__":
    main()

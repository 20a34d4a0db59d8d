"""The server with SmolLM2: concurrent chats with different gates equal their offline texts."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import torch

import optrode as op
from optrode.control.generate import Request, generate
from optrode.control.serving.server import Server
from optrode.gate import conditions

pytestmark = pytest.mark.slow

N = 10
ASKED = (
    "What is the capital of France?", "Write a sentence about the sea, and then another one.", "Hello!",
    "How many days has a week?",
)  # fmt: skip


def vector(seed, norm):
    found = torch.randn(576, generator=torch.Generator().manual_seed(seed))
    return found / found.norm() * norm


FUNCTIONS = {
    "push": lambda dose: (op.add("blocks.20.resid_post", vector(1, 215.0), strength=dose),),
    "late": lambda dose: (op.add("blocks.14.resid_post", vector(2, 190.0), strength=dose, scope="generated"),),
    "heads": lambda dose: (op.zero("blocks.10:20.attn.z[head=1|4]", strength=dose),),
    "probed": lambda dose: (
        op.add(
            "blocks.20.resid_post", vector(3, 215.0), strength=dose,
            openness=conditions.probe("blocks.14.resid_post", vector(4, 1.0), above=0.5),
        ),
    ),
}  # fmt: skip
SETS = ({"push": 0.5}, {"late": 0.4}, {"heads": 1.0, "push": -0.3}, {"probed": 0.6})


def test_eight_concurrent_chats_with_four_gate_sets_equal_their_offline_texts():
    model = op.load("smollm2")
    asked = [(ASKED[ix % 4], (*SETS, {}, SETS[0], {}, SETS[1])[ix]) for ix in range(8)]

    def offline(one):
        turns = [{"role": "user", "content": one[0]}]
        prompt = model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        held = tuple(gate for name, dose in one[1].items() for gate in FUNCTIONS[name](dose))
        return generate(model, [Request(prompt, gates=held, max_new_tokens=N)])[0].text

    def ask(one):
        parts = api.chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": one[0]}], max_tokens=N, stream=True,
            extra_body={"gates": one[1]},
        )  # fmt: skip
        return "".join(part.choices[0].delta.content or "" for part in parts)

    with Server(model, FUNCTIONS, port=0) as server:
        api = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        with api, ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, asked))
    expected = [offline(one) for one in asked]
    assert found == expected
    assert len(set(expected)) >= 6

"""Answers of the server are those of the engine offline, request by request, whatever else is in the batch."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from optrode.control.generate import Request, generate
from tests.unit.control.serving.samples import FUNCTIONS, PROMPT, chatty

N = 12


@pytest.fixture(scope="module")
def api(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def offline(prompt, gates=None, **options):
    held = tuple(gate for name, dose in (gates or {}).items() for gate in FUNCTIONS[name](dose))
    (found,) = generate(chatty(), [Request(prompt, gates=held, max_new_tokens=N, **options)])
    return found


def templated(*said):
    turns = [{"role": role, "content": content} for role, content in said]
    return chatty().tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


SETS = ({"steer": 1.0}, {"late": -1.5}, {"mute": 1.0, "steer": 0.5}, {"probed": 2.0})
PROMPTS = (PROMPT, "The war lasted from the year 17", "So really", "When Mary went to the store")


def test_eight_concurrent_streams_with_four_gate_sets_equal_their_offline_texts(api):
    asked = [(prompt, gates) for prompt, gates in zip(PROMPTS * 2, (*SETS, {}, SETS[0], {}, SETS[2]), strict=True)]

    def ask(one):
        prompt, gates = one
        parts = api.completions.create(
            model="tiny", prompt=prompt, max_tokens=N, stream=True, extra_body={"gates": gates}
        )  # fmt: skip
        return "".join(part.choices[0].text for part in parts)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, asked))
    expected = [offline(prompt, gates).text for prompt, gates in asked]
    assert found == expected
    assert len(set(expected)) == len(expected)
    assert found[4] == offline(PROMPTS[0]).text and found[6] == offline(PROMPTS[2]).text


def test_eight_concurrent_whole_chats_equal_their_offline_texts(api):
    gates = [*SETS, *SETS]

    def ask(ix):
        found = api.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": PROMPTS[ix % 3]}], max_tokens=N,
            extra_body={"gates": gates[ix]},
        )  # fmt: skip
        return found.choices[0].message.content, found.usage.prompt_tokens, found.usage.completion_tokens

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    for ix, got in enumerate(found):
        alone = offline(templated(("user", PROMPTS[ix % 3])), gates[ix])
        assert got == (alone.text, alone.n_prompt, len(alone.token_ids))


def test_sampling_is_by_the_seed_alone(api):
    def ask(seed):
        found = api.completions.create(model="tiny", prompt=PROMPT, max_tokens=N, temperature=1.5, top_p=0.9, seed=seed)
        return found.choices[0].text

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, (1, 2, 1, 3)))
    assert found == [offline(PROMPT, temperature=1.5, top_p=0.9, seed=seed).text for seed in (1, 2, 1, 3)]
    assert found[0] == found[2] != found[1]


def test_a_dose_takes_effect_at_once_and_dose_0_is_the_plain_model(api):
    doses = (0.0, 1.0, -1.0, 0.0, 2.0)
    found = []
    for dose in doses:
        answer = api.completions.create(model="tiny", prompt=PROMPT, max_tokens=N, extra_body={"gates": {"steer": dose}})
        found.append(answer.choices[0].text)
    assert found == [offline(PROMPT, {"steer": dose}).text for dose in doses]
    assert found[0] == found[3] == offline(PROMPT).text and len(set(found)) == 4


def test_the_answer_says_what_was_held_and_how_open_it_was(api):
    gates = [{"name": "steer"}, {"name": "probed", "dose": 2.0}]
    found = api.completions.create(model="tiny", prompt=PROMPT, max_tokens=N, extra_body={"gates": gates, "trace": True})
    alone = offline(PROMPT, {"steer": 1.0, "probed": 2.0}, trace=True)
    held = found.model_extra["optrode"]
    assert held["gates"] == [{"name": "steer", "dose": 1.0}, {"name": "probed", "dose": 2.0}]
    steer, probed = held["trace"]
    assert (steer["gate"], steer["site"], steer["openness"]) == ("steer", "blocks.1.resid_post", [1.0] * N)
    first = alone.n_prompt - 1
    assert probed["openness"] == alone.trace.values[1][0, first : first + N].tolist()
    assert set(probed["openness"]) == {0.0, 1.0}


def test_a_stream_ends_with_what_was_held_and_the_counts_that_were_asked_for(api):
    parts = list(api.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": PROMPT}], max_completion_tokens=N, stream=True,
        stream_options={"include_usage": True}, extra_body={"gates": {"late": 1}, "trace": True},
    ))  # fmt: skip
    alone = offline(templated(("user", PROMPT)), {"late": 1.0})
    assert parts[0].choices[0].delta.role == "assistant"
    assert "".join(part.choices[0].delta.content or "" for part in parts[:-1]) == alone.text
    assert parts[-2].choices[0].finish_reason == "length"
    assert parts[-2].model_extra["optrode"]["gates"] == [{"name": "late", "dose": 1.0}]
    assert [one["openness"] for one in parts[-2].model_extra["optrode"]["trace"]] == [[0.0] + [1.0] * (N - 1)]
    assert parts[-1].choices == [] and parts[-1].usage.completion_tokens == N
    assert all(part.usage is None for part in parts[:-1])
    assert len({part.id for part in parts}) == 1


def test_a_stream_is_events_that_end_with_done(client):
    body = {"prompt": PROMPT, "max_tokens": 3, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    said = [json.loads(line[6:]) for line in lines[:-1]]
    assert {one["object"] for one in said} == {"text_completion"}
    assert [one["choices"][0]["finish_reason"] for one in said][-1] == "length"


def test_a_stop_text_ends_the_answer(api):
    whole = offline(PROMPT).text
    stop = whole[len(whole) // 2 :][:2]
    found = api.completions.create(model="tiny", prompt=PROMPT, max_tokens=N, stop=[stop])
    assert found.choices[0].text == whole[: whole.find(stop)] and found.choices[0].finish_reason == "stop"


def test_prompts_may_be_token_ids(api):
    ids = chatty().encode(PROMPT)
    assert api.completions.create(model="tiny", prompt=ids, max_tokens=N).choices[0].text == offline(PROMPT).text


def test_parts_of_text_and_earlier_answers_are_taken_as_clients_send_them(client):
    said = [
        {"role": "developer", "content": "So"},
        {"role": "user", "content": [{"type": "text", "text": "The "}, {"type": "text", "text": "year"}]},
        {"role": "assistant", "content": " Mary", "refusal": None, "tool_calls": []},
        {"role": "user", "content": "The city"},
    ]  # fmt: skip
    found = client.post("/v1/chat/completions", json={"messages": said, "max_tokens": N, "n": 1, "tools": []}).json()
    expected = offline(templated(("system", "So"), ("user", "The year"), ("assistant", " Mary"), ("user", "The city")))
    assert found["choices"][0]["message"]["content"] == expected.text


def test_one_token_of_answer_with_gates_for_generated_tokens_is_no_error(client):
    body = {"prompt": PROMPT, "max_tokens": 1, "gates": {"late": 1}}
    found = client.post("/v1/completions", json=body)
    assert found.status_code == 200, found.text
    assert found.json()["usage"]["completion_tokens"] == 1


def test_models_and_gates_are_listed(api, client):
    assert [one.id for one in api.models.list()] == ["tiny"]
    assert api.models.retrieve("tiny").owned_by == "optrode"
    listed = {one["name"]: one for one in client.get("/v1/gates").json()["data"]}
    assert list(listed) == list(FUNCTIONS)
    assert listed["steer"]["behaviour"] == "Adds a vector." and listed["steer"]["card"] is None
    assert client.get("/health").json() == {"status": "ok"}

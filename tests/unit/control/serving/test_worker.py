"""The worker: batches, the line, clients that go, and the end."""

import asyncio
import contextlib
import queue
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from optrode.control.generate import Request, Written
from optrode.control.serving.job import Done, Failed, Job, Piece
from optrode.control.serving.refusal import Refused
from optrode.control.serving.server import Server
from optrode.control.serving.worker import Worker
from optrode.errors import BadGate
from tests.unit.control.serving.samples import PROMPT, Held, chatty


def until(true, seconds=30.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


def job(prompt=(1,)):
    events = queue.Queue()
    return Job(Request(prompt), events.put), events


@contextlib.contextmanager
def working(engine, **options):
    worker = Worker(engine, **options)
    worker.start()
    try:
        yield worker
    finally:
        worker.close(grace_s=0.0)
        assert worker.join(10)


@contextlib.contextmanager
def held(**options):
    """A server whose engine writes one token, and the others when it is let go."""
    engine = Held()
    engine.go.release()
    with Server(chatty(), {}, port=0, name="tiny", engine=engine, **options) as server:
        try:
            yield server, engine
        finally:
            for _ in range(99):
                engine.go.release()


def in_thread(call):
    """Begin a call; the function that is returned waits for what it returns."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return lambda: future.result(30)


def body(**more):
    return {"prompt": PROMPT, "max_tokens": 3} | more


def test_jobs_that_wait_run_together_and_in_their_order():
    engine = Held()
    with working(engine, max_batch=3) as worker:
        jobs = [job((ix,)) for ix in range(6)]
        for one, _ in jobs:
            worker.submit(one)
        until(lambda: len(engine.batches) == 1 and worker.n_waiting == 3)
        for _ in range(6):
            engine.go.release()
        for _, events in jobs:
            assert [events.get(timeout=10) for _ in range(3)] == [Piece("a")] * 3
            assert isinstance(events.get(timeout=10), Done)
    assert [[one.prompt for one in batch] for batch in engine.batches] == [[(0,), (1,), (2,)], [(3,), (4,), (5,)]]


def test_a_request_that_fails_takes_no_others_with_it_and_nothing_is_said_twice():
    def engine(requests, *, on_token, cancelled):
        for row in range(len(requests)):
            on_token(row, "ab")
        if any(one.prompt == (13,) for one in requests):
            raise BadGate("a gate", "it cannot be held", next_step="change it")
        return tuple(Written("abc", (1, 2, 3), "stop", 1) for _ in requests)

    with working(engine, max_batch=3, gather_s=0.2) as worker:
        jobs = [job((ix,)) for ix in (12, 13, 14)]
        for one, _ in jobs:
            worker.submit(one)
        for ix, (_, events) in enumerate(jobs):
            said = [events.get(timeout=10) for _ in range(2 if ix == 1 else 3)]
            assert said[0] == Piece("ab")
            if ix == 1:
                assert isinstance(said[1], Failed) and (said[1].why.status, said[1].why.reason) == (400, "bad-gate")
            else:
                assert said[1] == Piece("c") and isinstance(said[2], Done)
            assert events.empty()


def test_what_fails_inside_is_the_servers_fault_and_the_worker_goes_on(caplog):
    def engine(requests, *, on_token, cancelled):
        if requests[0].prompt == (13,):
            raise RuntimeError("out of\nmemory")
        return (Written("", (1,), "stop", 1),)

    with working(engine, max_batch=1) as worker:
        (bad, events), (good, others) = job((13,)), job((14,))
        worker.submit(bad)
        worker.submit(good)
        why = events.get(timeout=10).why
        assert why.status == 500 and "RuntimeError: out of memory" in str(why)
        assert isinstance(others.get(timeout=10), Done)
    assert "out of\nmemory" in caplog.text


def test_a_job_that_is_dropped_while_it_waits_gives_up_its_place():
    engine = Held()
    with working(engine, max_batch=1, max_queue=1) as worker:
        jobs = [job((ix,)) for ix in range(3)]
        worker.submit(jobs[0][0])
        until(lambda: engine.batches)
        worker.submit(jobs[1][0])
        with pytest.raises(Refused, match="1 others? wait") as caught:
            worker.submit(jobs[2][0])
        assert caught.value.status == 429 and int(caught.value.headers["Retry-After"]) >= 1
        worker.drop(jobs[1][0])
        worker.submit(jobs[2][0])
        assert worker.n_waiting == 1 and worker.n_running == 1


@contextlib.contextmanager
def streaming(server):
    """A request whose answer has begun; its lines."""
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body(stream=True), timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(lines)
        yield lines


def post(server, is_stream=False, timeout=30):
    return httpx.post(f"{server.url}/v1/completions", json=body(stream=is_stream), timeout=timeout)


def test_a_full_line_is_429_with_the_time_to_come_again():
    with held(max_batch=1, max_queue=1) as (server, engine), streaming(server):
        waiting = in_thread(lambda: post(server))
        until(lambda: server.worker.n_waiting == 1)
        answer = post(server)
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "queue_full"
        api = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        with api, pytest.raises(openai.RateLimitError, match="others? wait"):
            api.completions.create(model="tiny", **body())
        for _ in range(9):
            engine.go.release()
        assert waiting().json()["choices"][0]["text"] == "aaa"


def test_a_client_that_goes_frees_its_row():
    with held(max_batch=2) as (server, engine):
        with streaming(server):
            assert server.worker.n_running == 1
        until(lambda: engine.ended.is_set() and server.worker.n_running == 0)
        assert len(engine.batches) == 1


def test_a_client_that_does_not_wait_for_a_whole_answer_frees_its_row():
    with held(max_batch=2) as (server, engine):
        with pytest.raises(httpx.ReadTimeout):
            post(server, timeout=1.0)
        until(lambda: engine.ended.is_set() and server.worker.n_running == 0)


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_goes_while_it_waits_frees_its_place(is_stream):
    with held(max_batch=1) as (server, engine), streaming(server):
        with pytest.raises(httpx.ReadTimeout):
            post(server, is_stream, timeout=1.0)
        until(lambda: server.worker.n_waiting == 0)
        assert len(engine.batches) == 1


def test_shutting_down_lets_the_batch_end_and_refuses_what_waits():
    with held(max_batch=1) as (server, engine):
        with streaming(server) as lines:
            waiting = [in_thread(lambda is_stream=is_stream: post(server, is_stream)) for is_stream in (False, True)]
            until(lambda: server.worker.n_waiting == 2)
            stopping = in_thread(lambda: server.stop(grace_s=20.0))
            for answer in waiting:
                assert answer().status_code == 503 and answer().json()["error"]["code"] == "shutting_down"
            for _ in range(3):
                engine.go.release()
            rest = [line for line in lines if line]
            assert rest[-1] == "data: [DONE]" and '"finish_reason": "length"' in rest[-2]
        stopping()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")


def test_what_runs_longer_than_the_grace_is_cut_and_told_so():
    with held() as (server, engine):
        with streaming(server) as lines:
            began = time.monotonic()
            stopping = in_thread(lambda: server.stop(grace_s=0.2))
            rest = [line for line in lines if line]
            assert '"code": "shutting_down"' in rest[-1] and "[DONE]" not in rest[-1]
        stopping()
        assert time.monotonic() - began < 8
        assert engine.ended.wait(5)


def test_a_server_that_never_started_can_be_stopped():
    server = Server(chatty(), port=0)
    server.stop()


def test_the_app_answers_without_a_socket():
    engine = Held()
    for _ in range(3):
        engine.go.release()
    server = Server(chatty(), port=0, name="tiny", engine=engine)
    server.worker.start()

    async def ask():
        transport = httpx.ASGITransport(app=server.service.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/v1/completions", json=body())

    try:
        with ThreadPoolExecutor(1) as apart:  # a browser test in this process may keep a loop running in this thread
            found = apart.submit(lambda: asyncio.run(ask())).result(timeout=60)
        assert found.json()["choices"][0]["text"] == "aaa"
    finally:
        server.worker.close()
        server.worker.join()
        server.stop()


def test_rows_of_the_real_engine_end_when_their_clients_go_and_the_others_go_on():
    with Server(chatty(), {}, port=0, name="tiny") as server:
        waiting = in_thread(lambda: httpx.post(f"{server.url}/v1/completions", json=body(max_tokens=100), timeout=60))
        with httpx.stream(
            "POST", f"{server.url}/v1/completions", json=body(stream=True, max_tokens=110), timeout=60
        ) as answer:  # fmt: skip
            lines = answer.iter_lines()
            assert next(lines)
        assert waiting().json()["usage"]["completion_tokens"] == 100
        until(lambda: server.worker.n_running == server.worker.n_waiting == 0)
        assert post(server).status_code == 200

"""Records of edges come back to the bit; files that are not whole, or not a pair, are refused with what and where."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from optrode.arrays import tensor_file
from optrode.circuit.circuit import Interval
from optrode.circuit.edge.artefact import load_circuit as load
from optrode.circuit.edge.artefact import save_circuit as save
from optrode.circuit.edge.compare import compare
from optrode.circuit.edge.records import EdgeCheck, EdgeCurve, EdgeLoss, EdgeProof, Redundancy, SharePoint
from optrode.circuit.edge.select import select
from optrode.circuit.edge.stability import bootstrap_jaccard
from optrode.errors import BadFile, BadOption
from optrode.records import content_hash, plain, read_named, restore, write_named
from optrode.reports.folder import read_run, write_run
from tests.unit.circuit.edge.samples import GRAPHS, PROVENANCE, graphs, make_circuit, make_scores

HALF = Interval(0.25, 0.75)
CHECK = EdgeCheck(("embed -> m0", "m0 -> logits"), (True, False), (1.0, 0.1), (0.9, 0.0), 0.99, True, ("m1 -> m2",))


def make_proof():
    points = (SharePoint(0.001, 1, 0.1, HALF), SharePoint(1.0, 900, 1.0, HALF))
    return EdgeProof(
        task="ioi", metric="logit_gap", unit="logits", ablation="resample", size=4, n_all=900, full=3.0, empty=0.1,
        faithfulness=0.9, interval=HALF, curves=(EdgeCurve("absolute", points, 0.5, 0.4),), random=(0.1, 0.2), without=0.05,
        without_interval=HALF, completeness=(0.1,), minimality=(EdgeLoss("embed -> m0", 0.2, HALF),),
        redundancy=(Redundancy("m1", 2.0, 1.0, 2.0, True),), jaccard=0.85, n_prompts=32, n_bootstrap=1000,
        provenance=PROVENANCE,
    )  # fmt: skip


def assert_same(a, b):
    """Equal in every field, arrays to the bit and the dtype."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    elif is_dataclass(a):
        for field in fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    else:
        assert a == b


@pytest.fixture
def pair(tmp_path):
    """The two files of a circuit."""
    return save(make_circuit(make_scores(), 5), tmp_path / "ioi"), tmp_path / "ioi.safetensors"


@settings(max_examples=25, deadline=None)
@given(graphs(), st.integers(1, 3), st.sampled_from(["float32", "float64", "float16"]), st.booleans(), st.integers(0, 99))
def test_circuits_come_back_to_the_bit(graph, n_prompts, dtype, has_more, seed):
    rng = np.random.default_rng(seed)
    scores = make_scores(graph, per_prompt=rng.normal(size=(n_prompts, graph.n_edges)).astype(dtype))
    if has_more:
        per_pos = rng.normal(size=(graph.n_edges, 3)).astype(dtype)
        scores = replace(scores, per_pos=per_pos, check=CHECK, notes=("coarse",), settings={"steps": "5"})
    circuit = make_circuit(scores, min(4, graph.n_edges))
    with tempfile.TemporaryDirectory() as folder:
        for record in (scores, circuit):
            assert_same(record, load(save(record, Path(folder) / "x")))


def test_a_circuit_is_one_json_and_one_tensor_file(pair):
    path, tensors = pair
    assert sorted(p.name for p in path.parent.iterdir()) == ["ioi.json", "ioi.safetensors"]
    data, circuit = json.loads(path.read_text()), load(path)
    assert (data["format"], data["kind"]) == (1, "EdgeCircuit")
    assert data["nodes"] == list(circuit.nodes) and data["edges"] == list(circuit.edges) and len(data["edges"]) == 5
    assert data["record"]["provenance"]["weights_hash"] == PROVENANCE.weights_hash
    arrays = load_file(tensors)
    assert sorted(arrays) == ["record.is_in", "record.scores.per_prompt"] and arrays["record.is_in"].dtype == bool
    reference = data["record"]["is_in"]
    assert (reference["dtype"], reference["shape"], len(reference["sha256"])) == ("bool", [circuit.n_all], 64)


@pytest.mark.parametrize("name", ["ioi.json", "ioi.safetensors", "ioi", "smollm2-1.7b"])
def test_the_suffix_may_be_left_out(tmp_path, name):
    path = save(make_scores(), tmp_path / name)
    assert path.suffix == ".json" and tensor_file(path).exists() and load(tmp_path / name).task == "ioi"


def test_a_proof_has_no_arrays_and_needs_no_tensor_file(tmp_path):
    path = save(make_proof(), tmp_path / "proof")
    assert load(path) == make_proof() and not tensor_file(path).exists()


def test_stability_and_comparisons_come_back(tmp_path):
    a, b = (make_circuit(make_scores(noise=1.0, random_seed=seed), 5) for seed in (0, 1))
    for record in (bootstrap_jaccard(a.scores, 5, n_bootstrap=4), compare(a, b)):
        assert_same(load(save(record, tmp_path / "x")), record)


def test_run_folders_hold_edges_and_open_as_artefacts(tmp_path):
    records = {"edge_circuit": make_circuit(make_scores(), 5), "edge_scores": make_scores(), "edge_proof": make_proof()}
    write_run(tmp_path, records)
    found = read_run(tmp_path)
    assert sorted(found) == sorted(records)
    for name, record in records.items():
        assert_same(found[name], record)
        assert_same(load(tmp_path / name), record)
    with pytest.raises(BadFile, match="no such file, and edge_scores.json has its arrays there"):
        (tmp_path / "edge_scores.safetensors").unlink()
        read_run(tmp_path)


def test_writing_again_replaces_both_files(pair):
    save(make_circuit(make_scores(random_seed=1), 7), pair[0])
    assert load(pair[0]).size == 7 and len(list(pair[0].parent.iterdir())) == 2


def test_a_missing_tensor_file(pair):
    pair[1].rename(pair[1].with_name("other.safetensors"))
    with pytest.raises(BadFile, match=r"ioi.safetensors: no such file, and ioi.json has its arrays there. Nearest: other"):
        load(pair[0])


def test_tensor_files_cut_anywhere(pair):
    whole = pair[1].read_bytes()
    for n in range(0, len(whole), 211):
        pair[1].write_bytes(whole[:n])
        with pytest.raises(BadFile, match="ioi.safetensors: not safetensors, or torn"):
            load(pair[0])


def test_every_changed_byte_is_seen(pair):
    whole = pair[1].read_bytes()
    for at in range(3, len(whole), 97):
        pair[1].write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BadFile, match="ioi.safetensors: "):
            load(pair[0])


def test_the_tensor_file_of_another_circuit(pair):
    save(make_circuit(make_scores(random_seed=9), 5), pair[0].with_name("other"))
    pair[1].write_bytes(pair[1].with_name("other.safetensors").read_bytes())
    with pytest.raises(BadFile, match=r"the numbers of 'record.\S+' are not those that ioi.json was written with"):
        load(pair[0])
    arrays = load_file(pair[1])
    save_file(arrays | {"record.is_in": arrays["record.is_in"][:3]}, pair[1])
    with pytest.raises(BadFile, match=r"'record.is_in' is bool \[3\], and ioi.json was written with bool \["):
        load(pair[0])
    del arrays["record.is_in"]
    save_file(arrays, pair[1])
    with pytest.raises(BadFile, match="it has no 'record.is_in', which ioi.json refers to"):
        load(pair[0])


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["edges"].pop(), "its edges are not those of the record"),
        (lambda data: data.update(nodes=["m0"]), "its nodes are not those of the record"),
        (lambda data: data.pop("nodes"), "its nodes are not those of the record"),
        (lambda data: data.update(kind="EdgeTrick"), "does not say what kind of record it is \\('EdgeTrick' is none of"),
        (lambda data: data.update(kind="EdgeScores"), "not a whole EdgeScores"),
        (lambda data: data.update(format=2), "its format is 2, this version reads 1"),
        (lambda data: data["record"].update(is_in=[True, False]), "not a whole EdgeCircuit"),
        (lambda data: data["record"]["is_in"].update({"$array": 3}), "not a whole EdgeCircuit"),
        (lambda data: data["record"]["scores"]["graph"].update(n_layers=9), "per_prompt has [0-9]+ edges, and the graph"),
        (lambda data: data["record"].update(is_in=data["record"]["scores"]["per_prompt"]), "not a whole EdgeCircuit"),
    ],
)
def test_json_changed_by_hand(pair, change, message):
    edit(pair[0], change)
    with pytest.raises(BadFile, match=message) as caught:
        load(pair[0])
    assert str(pair[0]) in str(caught.value)


def test_the_order_of_the_names_is_for_people_only(pair):
    edit(pair[0], lambda data: data["edges"].reverse())
    assert load(pair[0]).size == 5


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(BadOption, match="a Graph is not one. Nearest: EdgeScores, EdgeCircuit, EdgeProof, MethodTable"):
        save(GRAPHS["plain"], tmp_path / "x")
    unfit = replace(make_scores(), graph=GRAPHS["grouped"])
    with pytest.raises(BadOption, match="per_prompt has [0-9]+ edges, and the graph [0-9]+"):
        save(unfit, tmp_path / "x")
    with pytest.raises(BadOption, match="not JSON compliant"):
        save(replace(make_proof(), jaccard=float("nan")), tmp_path / "x")
    with pytest.raises(BadFile, match="it cannot be written"):
        save(make_scores(), "/proc/nowhere/x")
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True, eq=False)
class Sample:
    """A record with arrays in every place where one can stand."""

    flat: NDArray[np.generic]
    nested: tuple[Float[np.ndarray, "..."], ...]
    named: dict[str, NDArray[np.generic]]
    missing: Float[np.ndarray, " x"] | None = None


def test_arrays_of_any_order_and_place_come_back(tmp_path):
    rng = np.random.default_rng(0)
    square = rng.normal(size=(3, 5))
    nested = (square.T, square[::2, ::-1], np.array(2.5), np.zeros((0, 3)))
    sample = Sample(np.arange(6, dtype=">i4").reshape(2, 3), nested, {"a": square})
    path = write_named(tmp_path / "x.json", sample)
    found = read_named(path, {"Sample": Sample})
    assert (found.flat == sample.flat).all() and found.flat.dtype == np.int32 and found.missing is None
    for a, b in zip(found.nested, sample.nested, strict=True):
        assert a.shape == b.shape and (a == b).all()
    assert (found.named["a"] == square).all()
    arrays = {}
    assert restore(Sample, plain(sample, arrays), arrays).nested[0].tolist() == square.T.tolist()
    assert sorted(arrays) == ["flat", "named.a", "nested.0", "nested.1", "nested.2", "nested.3"]


def test_numpy_scalars_are_plain_numbers():
    text = json.dumps(plain({"a": np.float32(0.5), "b": np.int64(3), "c": (np.bool_(True),)}))
    assert text == '{"a": 0.5, "b": 3, "c": [true]}'


def test_the_hash_of_a_record_is_that_of_its_numbers():
    scores = make_scores()
    same = replace(scores, per_prompt=np.asfortranarray(scores.per_prompt))
    other = replace(scores, per_prompt=scores.per_prompt + 1e-15)
    single = replace(scores, per_prompt=scores.per_prompt.astype(np.float32))
    assert content_hash(scores) == content_hash(same)
    assert len({content_hash(record) for record in (scores, other, single)}) == 3


def test_selections_survive(tmp_path):
    scores = make_scores(noise=1.0)
    found = load(save(scores, tmp_path / "scores"))
    for how in ("absolute", "signed", "greedy"):
        assert (select(found, 9, how) == select(scores, 9, how)).all()


def test_no_torch_is_needed():
    code = (
        "import sys, optrode.reports.folder, optrode.circuit.edge.artefact, optrode.circuit.edge.stability;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Reports of edge circuits: what is said, what is drawn, and what is only counted."""

import json
import re
from dataclasses import replace

import edge_samples as edges
import numpy as np
import plotly.graph_objects as go
import pytest
import samples

from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.records import EdgeCircuit, EdgeScores, MethodTable
from optrode.errors import BadOption
from optrode.records import plain, restore
from optrode.reports import Page, report, show
from optrode.reports.edges.drawn import MOST_DRAWN, MOST_LISTED, drawn, listed
from optrode.reports.edges.figures import method_curves, overlap, share_curve
from optrode.reports.edges.words import by_cmd, cmd_of_nothing, edge_headline
from optrode.reports.parts import sort_parts

HOSTILE = "<script>alert(1)</script>"


def data_of(page: Page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.html(), re.S)[1])


def said(*parts):
    return edge_headline(sort_parts(parts))


def words_of(page: Page):
    return re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", "", page.html(), flags=re.S))


def random_circuit(graph: Graph, size: int, *, n_prompts: int = 5) -> EdgeCircuit:
    per_prompt = np.random.default_rng(0).standard_normal((n_prompts, graph.n_edges))
    scores = EdgeScores("ioi", "logit_gap", "logits", "eap", "zero", graph, per_prompt, samples.provenance())
    chosen = np.zeros(graph.n_edges, dtype=bool)
    chosen[scores.ranked()[:size]] = True
    return EdgeCircuit("ioi", chosen, "absolute", 0.0, scores, (), samples.provenance())


def test_headline_of_a_proof_that_holds():
    lead = said(edges.circuit(), edges.proof())
    assert lead.status == "holds"
    assert lead.sentence == (
        "412 of 70,651 edges keep 0.91 [0.86, 0.95] of indirect object identification in smollm2, on 16 prompts; the best "
        "of 20 random circuits of that size keeps 0.03; without the circuit 0.04 is left."
    )
    texts = " ".join(check.text for check in lead.checks)
    assert "Redundant inputs at a18.h6.q:" in texts and "below the bar of 0.8" in texts and "by at most 0.11" in texts


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        (edges.proof(0.6), "keep only 0.60 [0.55, 0.64] (target 0.85)"),
        (edges.proof(0.91, best_random=0.95), "1 of 20 random circuits of that size keeps as much or more (best 0.95)"),
        (edges.proof(float("nan")), "keep only undefined"),
    ],
)
def test_a_proof_that_fails_is_said_to_fail(proof, words):
    lead = said(edges.circuit(), proof)
    assert lead.status == "fails" and words in lead.sentence
    assert lead.sentence.startswith("The circuit does not hold: 412 of")


def test_without_random_circuits_nothing_is_claimed():
    lead = said(edges.circuit(), replace(edges.proof(), random=()))
    assert lead.status == "open" and "chance is not ruled out" in lead.sentence


def test_headlines_without_a_proof():
    assert said(edges.circuit()).sentence.endswith("no proof is on this page, so the circuit is a hypothesis.")
    scored = said(edges.scores()).sentence
    assert scored.startswith("Of 70,651 edges, a8.h2 → a21.g1.v is the strongest: by edge attribution patching")
    compared = said(edges.method_table()).sentence
    assert compared.startswith("Of 8 methods on indirect object identification in smollm2, exact follows")
    assert compared.endswith("Circuits that keep nothing would score 0.75.")


def test_a_node_proof_is_not_hidden_behind_a_comparison_of_methods():
    page = report(samples.circuit(), samples.proof(), edges.method_table())
    assert "20 of 300 nodes" in page.lead and "The circuit holds" in page.lead


def test_sections_of_edges_stand_beside_those_of_nodes():
    page = report(*samples.everything(), edges.circuit(), edges.proof(), edges.method_table())
    found = [section.key for section in page.sections]
    expected = ["proof", "edge-scores", "edges", "edge-proof", "methods", "curves", "overlap", "provenance"]
    assert found[-8:] == expected
    ids = re.findall(r' id="([^"]+)"', page._body())
    assert len(ids) == len(set(ids))
    assert "Above every one of 20 random circuits of the same size" in words_of(page), "the node proof keeps its own checks"


def test_panel_holds_the_strongest_edges_with_intervals_and_losses():
    circuit, proof = edges.circuit(), edges.proof()
    data = data_of(report(circuit, proof))["edges"]
    assert data["size"] == 412 and data["most"] == MOST_DRAWN == 300 and data["start"] == 60 and len(data["edges"]) == 412
    names = [edge["name"].replace("→", "->") for edge in data["edges"]]
    assert tuple(names) == circuit.edges
    sizes = [abs(edge["value"]) for edge in data["edges"]]
    assert sizes == sorted(sizes, reverse=True)
    lost = {row.edge: row for row in proof.minimality}
    assert [edge["lost"] is not None for edge in data["edges"]] == [name in lost for name in names]
    assert data["edges"][0]["lost"][0] == f"{lost[names[0]].lost:.3f}"


def test_ends_of_drawn_edges_are_those_of_the_graph():
    circuit = edges.circuit()
    data = drawn(circuit, {})
    for edge in data["edges"]:
        receiver, sender = circuit.graph.ends[circuit.graph.edge(edge["name"])]
        assert data["nodes"][edge["from"]]["name"] == circuit.graph.senders[sender]
        owners = circuit.graph.heads_of(int(receiver)) or ("logits",)
        assert tuple(data["nodes"][ix]["name"] for ix in edge["to"]) == owners
        is_shared = edge["port"] in ("k", "v")
        assert (edge["group"] is not None) == is_shared
        if is_shared:
            assert edge["into"].startswith(f"{data['groups'][edge['group']]['name']}.")
            assert sorted(data["groups"][edge["group"]]["heads"]) == sorted(edge["to"])


def test_heads_with_keys_of_their_own_have_no_shared_bar():
    data = drawn(edges.tiny_circuit(), {})
    assert data["ports"] and data["groups"] == [] and {edge["port"] for edge in data["edges"]} == {"q", "k", "v", ""}
    assert {node["label"] for node in data["nodes"]} == {"embed", "0.0", "1.0", "MLP 0", "logits"}


def test_intervals_are_the_percentiles_of_resampled_means():
    circuit = random_circuit(Graph(2, 2, 2), 3, n_prompts=6)
    found = listed(circuit)
    drawn_rows = np.random.default_rng(0).integers(0, 6, (1000, 6))
    for ix, edge in enumerate(found.edges):
        means = circuit.scores.per_prompt[:, edge][drawn_rows].mean(1)
        assert np.allclose([found.low[ix], found.high[ix]], np.percentile(means, [2.5, 97.5]))
        assert found.values[ix] == pytest.approx(circuit.scores.values[edge])


def test_of_a_large_circuit_the_rest_is_only_counted():
    circuit = random_circuit(Graph(6, 16, 4), 1800)
    data = drawn(circuit, {})
    assert len(data["edges"]) == MOST_LISTED == 1000 and data["size"] == 1800 and data["packed"]
    assert data["total"] == pytest.approx(np.abs(circuit.scores.values[circuit.is_in]).sum())
    words = words_of(report(circuit))
    assert "Of 1,800 edges, the 300 strongest can be drawn and the 1,000 strongest are listed" in words
    assert "the others are only counted" in words


@pytest.mark.parametrize("graph", [Graph(1, 1, 1, has_mlps=False), Graph(2, 3, 3, is_parallel=True), Graph(2, 4, 2)])
def test_graphs_of_any_kind_make_a_page(graph):
    circuit = random_circuit(graph, graph.n_edges, n_prompts=1)
    assert data_of(report(circuit))["edges"]["most"] == graph.n_edges


def test_an_empty_circuit_has_no_graph():
    page = report(random_circuit(Graph(1, 1, 1), 0))
    assert "edges" not in data_of(page) and "0 of 8 edges" in words_of(page)


def test_notes_and_disagreement_are_warnings():
    scores = edges.scores()
    disagreeing = edges.check(scores, agrees=False)
    text = report(replace(scores, check=disagreeing)).html()
    assert f'<p class="warn">{edges.NOTE}</p>' in text and "effects disagree: do not trust the ranking" in text
    assert disagreeing.missed[0].replace("->", "→") in text and "1 random edge has a large exact effect" in text
    assert "effects disagree" not in report(scores).html()
    assert "were not measured again exactly" in report(replace(scores, check=None)).html()
    assert "were not measured again" not in report(replace(scores, check=None, method="exact")).html()


def test_curve_holds_both_selections_and_its_controls():
    proof, circuit = edges.proof(), edges.circuit()
    figure = share_curve(proof, circuit)
    traces = {trace["name"]: trace for trace in figure["data"] if trace["name"]}
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert traces["absolute selection"]["x"][:3] == [0.1, 0.2, 0.5] and traces["signed selection"]["x"][-1] == 100
    share = pytest.approx(100 * 412 / 70651, rel=1e-4)
    assert traces["the circuit"]["x"] == [share] and traces["the circuit"]["y"] == [0.91]
    assert traces["random circuits of its size"]["x"] == [share] * 20
    assert traces["all edges but the circuit"]["y"] == [0.04]
    go.Figure(json.loads(json.dumps(figure, allow_nan=False)))
    caption = words_of(report(circuit, proof))
    absolute, signed = proof.curves
    assert f"absolute CPR {absolute.cpr:.2f}, CMD {absolute.cmd:.2f}; signed CPR {signed.cpr:.2f}" in caption


def test_every_test_of_the_proof_is_in_the_table():
    words = words_of(report(edges.circuit(), edges.proof()))
    for row in ("Completeness", "Without the circuit", "Minimality", "1 of 4 receivers flagged", "bar: at least 0.8"):
        assert row in words
    assert re.search(r"a18\.h6\.q</code></th><td>1.31</td><td>0.52</td><td>2.52</td><td><strong>redundant", report(
        edges.proof()
    ).html())  # fmt: skip


def test_methods_stand_by_cmd_and_what_was_not_measured_is_said():
    table = edges.method_table()
    shuffled = replace(table, rows=table.rows[::-1], jaccard=tuple(row[::-1] for row in table.jaccard[::-1]))
    ranked = by_cmd(shuffled)
    assert [row.cmd for row in ranked] == sorted(row.cmd for row in table.rows)
    text = report(shuffled).html()
    names = re.findall(r'<tr><th scope="row">([\w-]+)</th>', text[: text.index("Comparison of methods")])
    assert names == [row.method for row in ranked]
    assert "not measured" in text and edges.NOTE in text
    one, other = (overlap(each)["data"][0]["z"] for each in (table, shuffled))
    assert one == other and [row[ix] for ix, row in enumerate(one)] == [1] * 8


def test_key_figures_name_the_cheapest_method_that_runs_the_model():
    lead = words_of(report(edges.method_table()))
    assert "CMD of information-flow, 1 pass" in lead and "CMD of random" not in lead


def test_an_undefined_cmd_comes_last():
    table = edges.method_table()
    broken = replace(table.rows[0], cmd=float("nan"))
    table = replace(table, rows=(broken, *table.rows[1:]))
    assert by_cmd(table)[-1] is broken and "undefined" in report(table).html()


def test_methods_have_one_curve_each():
    rows = by_cmd(edges.method_table())
    for is_signed in (False, True):
        figure = method_curves(rows, is_signed=is_signed)
        assert [trace["name"] for trace in figure["data"]] == [row.method for row in rows]
        assert len({trace["meta"]["role"] for trace in figure["data"]}) == 8
        go.Figure(json.loads(json.dumps(figure, allow_nan=False)))
    go.Figure(json.loads(json.dumps(overlap(edges.method_table()), allow_nan=False)))


def test_cmd_of_a_circuit_that_keeps_nothing_is_quadrature():
    assert cmd_of_nothing([(share, 0.3) for share in edges.SHARES]) == pytest.approx(0.749)


def test_a_method_table_comes_back_from_json():
    table = edges.method_table()
    assert restore(MethodTable, json.loads(json.dumps(plain(table)))) == table


def test_a_record_alone_shows_its_figures_in_a_notebook():
    assert [section.key for section in show(edges.circuit()).sections] == ["edges"]
    assert [section.key for section in show(edges.proof()).sections] == ["edge-proof"]
    assert [section.key for section in show(edges.scores()).sections] == ["edge-scores"]


def test_text_of_records_never_becomes_markup():
    table = edges.method_table()
    rows = (replace(table.rows[0], method=HOSTILE, notes=(HOSTILE,)), *table.rows[1:])
    scores = replace(edges.scores(), notes=(HOSTILE,), unit=HOSTILE, settings={HOSTILE: HOSTILE})
    circuit = replace(edges.circuit(), scores=scores, selection=HOSTILE)
    redundant = (replace(edges.proof().redundancy[0], receiver=HOSTILE),)
    proof = replace(edges.proof(), unit=HOSTILE, redundancy=redundant)
    text = report(replace(table, rows=rows), circuit, proof).html()
    assert HOSTILE not in text and text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 8


def test_a_proof_of_another_circuit_is_refused():
    circuit, proof = edges.circuit(), edges.proof()
    with pytest.raises(BadOption, match="412 edges, the proof is of 411"):
        sort_parts((circuit, replace(proof, size=411)))
    with pytest.raises(BadOption, match="of task 'ioi', the proof of 'induction'"):
        sort_parts((circuit, replace(proof, task="induction")))
    with pytest.raises(BadOption, match="a model with 70651 edges, the proof of one with 23"):
        sort_parts((circuit, replace(proof, n_all=23)))
    stranger = replace(proof.minimality[0], edge="a29.h8 -> logits")
    assert "a29.h8 -> logits" not in circuit.edges
    with pytest.raises(BadOption, match="a29.h8 -> logits"):
        sort_parts((circuit, replace(proof, minimality=(stranger,))))
    with pytest.raises(BadOption, match="2 EdgeProof records"):
        sort_parts((proof, proof))

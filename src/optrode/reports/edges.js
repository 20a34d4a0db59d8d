"use strict";
// The graph of an edge circuit: rows are stacked from those that have an edge drawn, so that few edges make a small graph.
(() => {
  const { make, draw } = dom;
  const data = dom.data.edges, region = document.getElementById("edge-graph"), panel = document.getElementById("edge-details");
  const slider = document.getElementById("n-edges"), said = slider.parentElement.querySelector("output");
  const HEAD = [46, 29], MLP = [56, 21], END = [84, 23], BAR = 12, PORT = 13, SHOWN = 30, OVERVIEW = 10;
  const strongest = Math.max(...data.edges.map((edge) => Math.abs(edge.value))) || 1;
  const clamp = (value, most) => Math.max(-most, Math.min(most, value));
  let chosen = null, focused = data.edges[0].to[0], places = new Map(), bars = new Map();
  const n = () => Number(slider.value);

  // ---- Where everything stands.
  const used = () => {
    const edges = data.edges.slice(0, n());
    const nodes = [...new Set(edges.flatMap((edge) => [edge.from, ...edge.to]))];
    const groups = [...new Set(edges.map((edge) => edge.group).filter((group) => group !== null))];
    const layers = [...new Set(nodes.map((ix) => data.nodes[ix].layer))].sort((a, b) => a - b);
    return { edges, nodes, groups, layers };
  };
  const inLayer = (drawn, layer, kind) => drawn.nodes
    .filter((ix) => data.nodes[ix].layer === layer && data.nodes[ix].kind === kind)
    .sort((a, b) => data.nodes[a].head - data.nodes[b].head);
  const headsWide = (drawn) => {
    if (!data.packed) return Math.max(data.width, 120);
    return Math.max(4, ...drawn.layers.map((layer) => inLayer(drawn, layer, "head").length)) * data.pitch;
  };
  const box = (x, bottom, [width, height]) => ({ x, top: bottom - height, bottom, width, height });
  const place = (drawn) => {
    const wide = headsWide(drawn), middle = data.axis + wide / 2, rows = [], gap = drawn.layers.length > 6 ? 34 : 54;
    let floor = 0;
    places = new Map();
    bars = new Map();
    for (const layer of drawn.layers) {
      const heads = inLayer(drawn, layer, "head"), mlps = inLayer(drawn, layer, "mlp"), ends = inLayer(drawn, layer, "end");
      const groups = drawn.groups.filter((group) => data.groups[group].layer === layer);
      const foot = groups.length ? floor - BAR - 3 : floor, top = heads.length ? foot - HEAD[1] : floor;
      ends.forEach((ix) => places.set(ix, box(middle, floor, END)));
      heads.forEach((ix, at) => {
        const x = data.packed ? middle + (at - (heads.length - 1) / 2) * data.pitch : middle - data.width / 2 + (data.nodes[ix].head + 0.5) * data.pitch;
        places.set(ix, box(x, foot, HEAD));
      });
      groups.forEach((group) => {
        const at = data.groups[group].heads.map((ix) => places.get(ix).x);
        const left = Math.min(...at) - HEAD[0] / 2, right = Math.max(...at) + HEAD[0] / 2;
        bars.set(group, { x: (left + right) / 2, left, width: right - left, top: floor - BAR, bottom: floor });
      });
      const raised = heads.length && !data.parallel ? top - (gap > 40 ? 18 : 8) : foot;
      mlps.forEach((ix) => places.set(ix, box(data.axis + wide + data.side / 2, raised, MLP)));
      const highest = Math.min(top, ...[...mlps, ...ends].map((ix) => places.get(ix).top));
      rows.push({ layer, top: highest, bottom: floor });
      floor = Math.min(top - gap, highest - 16);
    }
    const lift = 8 - rows[rows.length - 1].top;
    [...places.values(), ...bars.values(), ...rows].forEach((each) => { each.top += lift; each.bottom += lift; });
    return { rows, width: data.axis + wide + data.side + 6, height: lift + 8 };
  };

  // ---- An edge leaves the top of its sender and ends at the port of its receiver.
  const target = (edge) => {
    const from = places.get(edge.from);
    if (edge.group !== null) {
      const bar = bars.get(edge.group);
      return [bar.x + (edge.port === "k" ? -9 : 9), bar.bottom];
    }
    const to = places.get(edge.to[0]);
    if (data.nodes[edge.to[0]].kind === "head") return [to.x + (data.ports ? { q: -PORT, k: 0, v: PORT }[edge.port] : 0), to.bottom];
    return [to.x + clamp((from.x - to.x) * 0.09, to.width / 2 - 7), to.bottom];
  };
  const curve = (edge, ix) => {
    const from = places.get(edge.from), [x2, y2] = target(edge);
    const x1 = from.x + clamp((x2 - from.x) * 0.06, from.width / 2 - 8), y1 = from.top;
    const tall = Math.max(y1 - y2, 1), bend = Math.min(Math.max(tall * 0.45, 12), 130);
    // An edge straight up would run through the boxes between its ends: it bows into the gap between columns.
    const bow = Math.abs(x2 - x1) < data.pitch * 0.4 && tall > 110 ? (ix % 2 ? 1 : -1) * data.pitch * 0.62 : 0;
    return `M${x1.toFixed(1)} ${y1}C${(x1 + bow).toFixed(1)} ${(y1 - bend).toFixed(1)} ${(x2 + bow).toFixed(1)} ${(y2 + bend).toFixed(1)} ${x2.toFixed(1)} ${y2}`;
  };
  const tone = (edge) => (edge.value < 0 ? "helps" : "hinders");

  // ---- Drawing.
  const paintEdge = (edge, ix) => {
    const path = curve(edge, ix), group = draw("g", { class: `link ${tone(edge)}`, "data-edge": ix });
    const width = 0.8 + 5.2 * Math.abs(edge.value) / strongest;
    group.append(draw("path", { class: "seen", d: path, "stroke-width": width.toFixed(2) }), draw("path", { class: "hit", d: path }));
    group.addEventListener("pointerenter", (event) => note(event, edge));
    group.addEventListener("pointermove", (event) => note(event, edge));
    group.addEventListener("pointerleave", () => { tip.hidden = true; });
    group.addEventListener("click", (event) => { event.stopPropagation(); choose({ edge: ix }); });
    return group;
  };
  const paintBox = (ix) => {
    const node = data.nodes[ix], at = places.get(ix), isHead = node.kind === "head";
    const group = draw("g", {
      class: `box ${node.kind}`, "data-box": ix, role: "button", "aria-pressed": "false", tabindex: ix === focused ? 0 : -1,
      "aria-label": `${node.what} ${node.label}, ${count(into(ix).length)} in, ${count(outOf(ix).length)} out`,
    });
    group.append(draw("rect", { class: "frame", x: at.x - at.width / 2, y: at.top, width: at.width, height: at.height, rx: node.kind === "mlp" ? 3 : 8 }));
    group.append(draw("text", { class: "name", x: at.x, y: at.top + (isHead ? 13 : at.height / 2 + 4), "text-anchor": "middle" }, node.label));
    if (isHead) (data.ports ? ["q", "k", "v"] : ["q"]).forEach((port, slot, all) => group.append(letter(port, at.x + (slot - (all.length - 1) / 2) * PORT, at.bottom - 4)));
    group.addEventListener("click", (event) => { event.stopPropagation(); choose({ node: ix }); });
    group.addEventListener("keydown", (event) => onKey(event, ix));
    return group;
  };
  const letter = (words, x, y) => draw("text", { class: "port", x, y, "text-anchor": "middle" }, words);
  const paintBar = (group) => {
    const bar = bars.get(group), found = draw("g", { class: "bar", "data-group": group });
    found.append(draw("rect", { x: bar.left, y: bar.top, width: bar.width, height: BAR, rx: 4 }));
    return found;
  };
  // Letters of a bar lie above the edges that cross it on their way to a head.
  const paintLetters = (group) => {
    const bar = bars.get(group);
    return [letter("k", bar.x - 9, bar.bottom - 3.2), letter("v", bar.x + 9, bar.bottom - 3.2)];
  };
  const paintRow = (row, width) => {
    if (row.layer < 0 || row.layer >= data.layers) return [];
    return [
      draw("rect", { class: "band", x: data.axis - 6, y: row.top - 4, width: width - data.axis + 4, height: row.bottom - row.top + 8, rx: 4 }),
      draw("text", { class: "tick", x: data.axis - 12, y: row.bottom - 10, "text-anchor": "end" }, `L${row.layer}`),
    ];
  };
  const render = () => {
    const drawn = used(), { rows, width, height } = place(drawn);
    const svg = draw("svg", { class: "edge-circuit", viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "The circuit: layers from below, edges upwards" });
    svg.append(...rows.flatMap((row) => paintRow(row, width)), ...drawn.groups.map(paintBar));
    svg.append(...drawn.edges.map(paintEdge).reverse(), ...drawn.groups.flatMap(paintLetters));
    if (!places.has(focused)) focused = drawn.edges[0].to[0];
    const order = [...drawn.nodes].sort((a, b) => places.get(b).bottom - places.get(a).bottom || places.get(a).x - places.get(b).x);
    svg.append(...order.map(paintBox));
    svg.addEventListener("click", () => choose(null));
    const left = region.scrollLeft;
    region.replaceChildren(svg);
    region.scrollLeft = left;
    const weight = drawn.edges.reduce((sum, edge) => sum + Math.abs(edge.value), 0) / (data.total || 1);
    const rest = data.size - n();
    said.textContent = `${count(n())} of ${count(data.size)} edges drawn, with ${Math.round(100 * weight)} % of the summed size of effects` + (rest ? `; ${count(rest)} weaker ones are not` : "");
    mark();
  };
  const count = (value) => value.toLocaleString("en-US");

  // ---- What is chosen, and what stands back.
  const into = (ix) => data.edges.map((edge, at) => at).filter((at) => data.edges[at].to.includes(ix));
  const outOf = (ix) => data.edges.map((edge, at) => at).filter((at) => data.edges[at].from === ix);
  const isOn = (at) => chosen && (chosen.edge === at || (chosen.node !== undefined && (data.edges[at].from === chosen.node || data.edges[at].to.includes(chosen.node))));
  const mark = () => {
    const svg = region.firstChild, near = new Set(chosen && chosen.node !== undefined ? [chosen.node] : []);
    svg.classList.toggle("has-choice", chosen !== null);
    svg.querySelectorAll("[data-edge]").forEach((link) => {
      const at = Number(link.dataset.edge);
      link.classList.toggle("on", Boolean(isOn(at)));
      if (isOn(at)) [data.edges[at].from, ...data.edges[at].to].forEach((ix) => near.add(ix));
    });
    svg.querySelectorAll("[data-box]").forEach((each) => {
      const ix = Number(each.dataset.box);
      each.classList.toggle("near", near.has(ix));
      each.setAttribute("aria-pressed", String(Boolean(chosen && chosen.node === ix)));
    });
    svg.querySelectorAll("[data-group]").forEach((bar) => bar.classList.toggle("near", data.groups[bar.dataset.group].heads.some((ix) => near.has(ix))));
  };
  const choose = (next, { grab = false } = {}) => {
    chosen = next;
    tip.hidden = true;
    if (next && next.node !== undefined) focus(next.node);
    // An edge chosen in a table is drawn, if it can be.
    if (next && next.edge !== undefined && next.edge >= n() && next.edge < data.most) {
      slider.value = next.edge + 1;
      render();
    }
    mark();
    fill();
    if (grab) panel.querySelector("h3").focus();
  };
  const focus = (ix) => {
    focused = ix;
    region.querySelectorAll("[data-box]").forEach((each) => each.setAttribute("tabindex", Number(each.dataset.box) === ix ? 0 : -1));
  };

  // ---- Keyboard: one stop for Tab, arrows between nodes.
  const MOVES = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
  const neighbour = (ix, [dx, dy]) => {
    const middle = (at) => [at.x, (at.top + at.bottom) / 2], [x, y] = middle(places.get(ix));
    const reach = [...places.entries()].map(([other, at]) => {
      const [right, down] = [middle(at)[0] - x, middle(at)[1] - y];
      const [along, across] = dx ? [right * dx, Math.abs(down)] : [down * dy, Math.abs(right)];
      return [other, along, dx ? along + 8 * across : 8 * along + across, across];
    }).filter(([, along, , across]) => along > 3 && (!dx || across < 40));
    return reach.length ? reach.reduce((a, b) => (b[2] < a[2] ? b : a))[0] : ix;
  };
  const onKey = (event, ix) => {
    if (MOVES[event.key]) focus(neighbour(ix, MOVES[event.key]));
    else if (event.key === "Enter" || event.key === " ") choose({ node: ix });
    else if (event.key === "Escape") choose(null);
    else return;
    event.preventDefault();
    region.querySelector(`[data-box="${focused}"]`).focus();
  };

  // ---- The panel and the note at the pointer.
  const tip = make("div", "", "edge-note");
  tip.hidden = true;
  document.body.append(tip);
  const unit = data.unit ? ` ${data.unit}` : "";
  const note = (event, edge) => {
    tip.replaceChildren(make("strong", edge.name), make("span", `effect ${edge.effect} ${edge.interval}${unit}`));
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
  };
  const title = (words) => {
    const found = make("h3", words);
    found.tabIndex = -1;
    return found;
  };
  const pick = (words, next) => {
    const button = make("button", words, "pick");
    button.type = "button";
    button.addEventListener("click", () => choose(next, { grab: true }));
    return button;
  };
  const cell = (value, interval) => {
    const found = make("td", value);
    if (interval) found.append(make("small", interval));
    return found;
  };
  const edgeTable = (caption, all, label) => {
    const table = make("table"), head = make("tr"), body = make("tbody");
    ["edge", "effect", "lost"].forEach((words) => { const column = make("th", words); column.scope = "col"; head.append(column); });
    all.slice(0, SHOWN).forEach((at) => {
      const edge = data.edges[at], row = make("tr", "", at < n() ? "" : "hidden-edge"), name = make("th", "", tone(edge));
      name.scope = "row";
      name.append(pick(label(edge), { edge: at }));
      row.append(name, cell(edge.effect, edge.interval), edge.lost ? cell(...edge.lost) : make("td", "–", "muted"));
      body.append(row);
    });
    const top = make("thead");
    top.append(head);
    table.append(make("caption", caption), top, body);
    const found = [table];
    if (all.length > SHOWN) found.push(make("p", `and ${count(all.length - SHOWN)} weaker`, "muted"));
    return found;
  };
  const list = (pairs) => {
    const found = make("dl");
    pairs.forEach(([name, value]) => found.append(make("dt", name), make("dd", value)));
    return found;
  };
  const site = (node) => {
    const found = make("p", "", "site");
    found.append(`${node.what} · `, make("code", node.site));
    return found;
  };
  const inputs = (edges) => {
    const sums = ["q", "k", "v"].map((port) => edges.filter((at) => data.edges[at].port === port).reduce((sum, at) => sum + Math.abs(data.edges[at].value), 0));
    const found = make("div", "", "routes"), total = sums.reduce((a, b) => a + b, 0);
    ["q", "k", "v"].forEach((port, ix) => {
      const bar = make("b");
      bar.style.width = `${100 * sums[ix] / (total || 1)}%`;
      found.append(make("span", port), bar, make("span", `${Math.round(100 * sums[ix] / (total || 1))} %`));
    });
    return [make("h4", "Its inputs, by summed size of effect"), found];
  };
  const fillNode = (ix) => {
    const node = data.nodes[ix], incoming = into(ix), outgoing = outOf(ix), isHead = node.kind === "head";
    const port = (edge) => (edge.port ? `${data.nodes[edge.from].name} → ${edge.port}` : data.nodes[edge.from].name);
    panel.replaceChildren(title(isHead ? `Head ${node.label}` : node.label), site(node));
    if (isHead && incoming.length) panel.append(...inputs(incoming));
    if (incoming.length) panel.append(...edgeTable(`Reads from: ${count(incoming.length)}`, incoming, port));
    if (outgoing.length) panel.append(...edgeTable(`Is read by: ${count(outgoing.length)}`, outgoing, (edge) => edge.into));
    const shared = data.groups.find((group) => group.heads.length > 1 && group.heads.includes(ix));
    if (shared) panel.append(make("p", `k and v are those of ${shared.name}, which ${count(shared.heads.length)} heads share; an edge into them stands with each head.`, "muted fine"));
    if ([...incoming, ...outgoing].some((at) => at >= n())) panel.append(make("p", "Pale edges are weaker than those drawn.", "muted fine"));
  };
  const fillEdge = (at) => {
    const edge = data.edges[at], ends = make("p", "", "ends");
    ends.append("From ", pick(data.nodes[edge.from].name, { node: edge.from }), " into ");
    edge.to.forEach((ix, slot) => ends.append(...(slot ? [", "] : []), pick(data.nodes[ix].name, { node: ix })));
    const how = edge.group !== null ? `${edge.port} of ${data.groups[edge.group].name}` : edge.port ? `${edge.port} of the head` : "its whole input";
    panel.replaceChildren(title(edge.name), list([
      ["Effect of ablating it", `${edge.effect} ${edge.interval}${unit}`],
      ["Faithfulness lost without it", edge.lost ? edge.lost.join(" ") : "not measured"],
      ["Rank by size of effect", `${count(at + 1)} of ${count(data.size)}`],
      ["Read as", how],
    ]), ends);
    if (at >= data.most) panel.append(make("p", `Not drawn: only the ${count(data.most)} strongest edges are.`, "muted fine"));
  };
  const fill = () => {
    panel.scrollTop = 0;
    if (chosen === null) {
      panel.replaceChildren(title("Strongest edges"), make("p", "Choose a node or an edge to see its numbers.", "site"));
      panel.append(...edgeTable(`${Math.min(OVERVIEW, data.size)} of ${count(data.size)}`, data.edges.map((edge, at) => at).slice(0, OVERVIEW), (edge) => edge.name));
    } else if (chosen.node !== undefined) fillNode(chosen.node);
    else fillEdge(chosen.edge);
  };

  slider.value = data.start;
  slider.addEventListener("input", render);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && chosen) choose(null); });
  render();
  fill();
  // On a narrow screen the graph starts at the node that the strongest edge goes into.
  region.scrollLeft = places.get(focused).x - region.clientWidth / 2;
})();

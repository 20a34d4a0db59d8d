"use strict";
(() => {
  const { make, draw, data } = dom;
  const root = document.documentElement;
  const TONES = ["n4", "n3", "n2", "n1", "z", "p1", "p2", "p3", "p4"];
  const plots = [...document.querySelectorAll("[data-figure]")];

  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const hovered = (element, words) => { element.textContent = words; };

  // ---- Plotly figures: the figure says what a trace stands for, the style sheet says how that looks.
  const ramp = (names) => names.map((name, ix) => [ix / (names.length - 1), colour(name)]);
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "cross", "star", "pentagon"];
  const series = () => Object.fromEntries(SYMBOLS.flatMap((symbol, ix) => {
    const tone = colour(`s${ix}`);
    return [
      [`series-${ix}`, { line: { color: tone, width: 1.8 }, marker: { color: tone, size: 7, symbol } }],
      [`band-${ix}`, { line: { width: 0 }, fillcolor: tone + "33" }],
      [`fill-${ix}`, { marker: { color: tone }, error_y: { color: colour("ink") } }],
      [`change-${ix}`, { marker: { color: tone, size: 13, symbol: "diamond-open", line: { width: 2.2 } } }],
    ];
  }));
  const roles = () => ({
    ...series(),
    second: { line: { color: colour("s3"), width: 2, dash: "dot" }, marker: { color: colour("s3"), size: 6, symbol: "square" } },
    edge: { line: { width: 0 }, marker: { opacity: 0 } },
    band: { line: { width: 0 }, fillcolor: colour("p1") + "99" },
    line: { line: { color: colour("p3"), width: 2 }, marker: { color: colour("p3"), size: 6 } },
    random: { marker: { color: colour("muted"), size: 7, opacity: 0.55 } },
    chosen: { marker: { color: colour("chosen"), size: 11 }, error_y: { color: colour("chosen") } },
    rest: { marker: { color: colour("ink"), size: 10, symbol: "diamond-open", line: { width: 2 } }, error_y: { color: colour("ink") } },
    guide: { line: { color: colour("muted"), width: 1, dash: "dash" } },
    bars: { marker: { color: colour("p3") }, error_x: { color: colour("ink") } },
  });
  const merged = (base, over) => {
    const result = { ...base };
    for (const [key, value] of Object.entries(over)) {
      result[key] = value && typeof value === "object" && !Array.isArray(value) ? merged(base[key] || {}, value) : value;
    }
    return result;
  };
  const painted = (figure) => {
    const look = roles();
    const isHeat = figure.data.some((trace) => trace.type === "heatmap");
    const traces = figure.data.map((trace) => {
      if (trace.meta && trace.meta.scale) {
        return { ...trace, colorscale: ramp(trace.meta.scale === "sequential" ? TONES.slice(4) : TONES) };
      }
      return merged(trace, look[trace.meta && trace.meta.role] || {});
    });
    const axis = { gridcolor: colour("line"), zerolinecolor: colour("muted"), linecolor: colour("line"), title: { font: { size: 12.5, color: colour("muted") } } };
    const layout = merged(figure.layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: isHeat ? colour("gap") : "rgba(0,0,0,0)",
      font: { family: colour("sans"), size: 11.5, color: colour("ink") },
      hoverlabel: { bgcolor: colour("paper"), bordercolor: colour("muted"), align: "left", font: { color: colour("ink"), size: 13, family: colour("sans") } },
      xaxis: axis, yaxis: axis, autosize: true,
    });
    // A line has the colour of the role that it is named by, or the colour of text that stands back.
    const tone = (shape) => (look[shape.name] ? look[shape.name].line.color : colour(shape.name === "now" ? "accent" : "muted"));
    layout.shapes = (figure.layout.shapes || []).map((shape) => merged(shape, { line: { color: tone(shape) } }));
    layout.annotations = (figure.layout.annotations || []).map((note) => merged(note, { font: { color: colour("muted") } }));
    return [traces, layout];
  };
  const options = (key) => ({
    responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false, doubleClick: false, showTips: false,
    toImageButtonOptions: { format: "svg", filename: key },
  });
  const drawPlot = (place) => {
    const figure = data.figures[place.dataset.figure];
    const [traces, layout] = painted(figure);
    Plotly.react(place, traces, layout, options(place.dataset.figure));
  };
  const drawPlots = () => plots.forEach(drawPlot);

  // ---- Attention: small maps on canvas, one pixel per cell, and a large one with labels in the panel.
  const nodes = data.circuit ? data.circuit.nodes : [];
  const tokens = data.circuit ? data.circuit.tokens : [];
  const marks = data.circuit ? data.circuit.marks : {};
  const token = (pos) => (tokens[pos] === undefined ? String(pos) : tokens[pos]) + (marks[pos] ? ` (${marks[pos]})` : "");
  const reading = (pattern, row, column) => `${token(row)} → ${token(column)}: ${pattern[row][column].toFixed(3)}`;
  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const shade = (value, stops) => {
    const at = Math.min(Math.max(value, 0), 1) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
    return stops[low].map((part, ix) => Math.round(part + (at - low) * (stops[low + 1][ix] - part)));
  };
  const stops = () => TONES.slice(4).map((name) => rgb(colour(name)));

  const drawCanvas = (canvas) => {
    const pattern = nodes[Number(canvas.dataset.pattern)].pattern, n = pattern.length, scale = stops();
    canvas.width = n;
    canvas.height = n;
    const context = canvas.getContext("2d"), image = context.createImageData(n, n);
    pattern.forEach((row, y) => row.forEach((value, x) => image.data.set([...shade(value, scale), 255], 4 * (y * n + x))));
    context.putImageData(image, 0, 0);
  };
  const canvases = [...document.querySelectorAll("canvas[data-pattern]")];
  canvases.forEach((canvas) => {
    const output = canvas.parentElement.querySelector("output"), pattern = nodes[Number(canvas.dataset.pattern)].pattern;
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect(), n = pattern.length;
      const column = Math.floor(n * (event.clientX - box.left) / box.width), row = Math.floor(n * (event.clientY - box.top) / box.height);
      if (pattern[row] && pattern[row][column] !== undefined) hovered(output, reading(pattern, row, column));
    });
    canvas.addEventListener("pointerleave", () => hovered(output, ""));
  });

  const labels = (n, each) => [...Array(n).keys()].filter((pos) => pos % Math.ceil(n / 24) === 0).map(each);
  const largeMap = (node, output) => {
    const pattern = node.pattern, n = pattern.length, cell = 236 / n, scale = stops();
    const longest = Math.max(...[...Array(n).keys()].map((pos) => (tokens[pos] ?? String(pos)).length));
    const left = 10 + 5.6 * longest;
    const map = draw("svg", { viewBox: `0 0 ${left + 240} ${262 + 4.4 * longest}`, role: "img", "aria-label": `Attention pattern of ${node.name}` });
    pattern.forEach((row, y) => row.forEach((value, x) => {
      const [r, g, b] = shade(value, scale);
      const rect = draw("rect", { x: left + x * cell, y: y * cell, width: cell - 0.6, height: cell - 0.6, fill: `rgb(${r},${g},${b})` });
      rect.addEventListener("pointerenter", () => hovered(output, reading(pattern, y, x)));
      map.append(rect);
    }));
    map.append(draw("rect", {
      x: left + node.reads * cell - 0.6, y: node.writes * cell - 0.6, width: cell + 0.6, height: cell + 0.6, fill: "none",
      stroke: colour("chosen"), "stroke-width": 1.6,
    }));
    map.append(...labels(n, (pos) => draw("text", { class: "tick", x: left - 4, y: (pos + 0.5) * cell + 3.5, "text-anchor": "end" }, tokens[pos] ?? String(pos))));
    map.append(...labels(n, (pos) => {
      const x = left + (pos + 0.5) * cell + 3;
      return draw("text", { class: "tick", x, y: 248, "text-anchor": "end", transform: `rotate(-50 ${x} 248)` }, tokens[pos] ?? String(pos));
    }));
    return map;
  };

  // ---- The panel of details.
  const panel = document.getElementById("node-details");
  const strip = (shares) => {
    const box = make("div", "", "strip"), most = Math.max(...shares.map(Math.abs)) || 1;
    shares.forEach((share, pos) => {
      const step = Math.round(4 * share / most);
      const piece = make("span", tokens[pos] ?? String(pos), `tone-${step ? (step < 0 ? "n" : "p") + Math.abs(step) : "z"}`);
      piece.title = `${token(pos)}: ${share.toFixed(3)}`;
      box.append(piece);
    });
    return box;
  };
  const routeBars = (routes) => {
    const box = make("div", "", "routes");
    routes.forEach(([name, value]) => {
      const bar = make("b");
      bar.style.width = `${100 * Math.min(Math.max(value, 0), 1)}%`;
      box.append(make("span", name), bar, make("span", value.toFixed(2)));
    });
    return box;
  };
  const fill = (node) => {
    const list = make("dl");
    node.rows.forEach(([name, value]) => list.append(make("dt", name), make("dd", value)));
    const site = make("p", "", "site");
    site.append(`${node.kind} · `, make("code", node.site));
    panel.replaceChildren(make("h3", node.name), site, list);
    if (node.routes && node.routes.length) panel.append(make("h4", "Attention along named routes"), routeBars(node.routes));
    if (node.shares) panel.append(make("h4", "Positions its effect comes from"), strip(node.shares));
    if (node.pattern && node.pattern.length) {
      const output = make("output");
      panel.append(make("h4", "Attention: from row to column"), largeMap(node, output), output);
    }
  };
  const buttons = [...document.querySelectorAll("[data-node]")];
  let chosen = -1;
  const choose = (ix) => {
    chosen = ix;
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.node) === ix)));
    fill(nodes[ix]);
  };
  buttons.forEach((button) => {
    const act = () => choose(Number(button.dataset.node));
    button.addEventListener("click", act);
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      act();
    });
  });

  // ---- Contents: the section in view is marked.
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    links.forEach((link, key) => (key === entry.target.id ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
  }), { rootMargin: "-20% 0px -70% 0px" });
  document.querySelectorAll("main section").forEach((section) => watcher.observe(section));

  // ---- Everything again when the colours change; paper is always light.
  const drawAll = () => {
    drawPlots();
    canvases.forEach(drawCanvas);
    dom.painters.forEach((paint) => paint());
    if (chosen >= 0) fill(nodes[chosen]);
  };
  const first = nodes.findIndex((node) => node.pattern);
  if (buttons.length) {
    choose(Math.max(first, 0));
    // On a narrow screen the graph is scrolled sideways to the node that the panel describes.
    const region = document.querySelector(".graph"), node = buttons[Math.max(first, 0)].getBoundingClientRect();
    if (node.right > region.getBoundingClientRect().right) region.scrollLeft = region.scrollWidth;
  }
  Object.assign(dom, { drawPlot, shade, stops });
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("beforeprint", () => { root.classList.add("light", "paper"); drawAll(); });
  addEventListener("afterprint", () => { root.classList.remove("light", "paper"); drawAll(); });

  // ---- In a notebook's frame: as tall as the content.
  if (root.classList.contains("bare") || window.frameElement) {
    const fit = () => { try { window.frameElement.style.height = `${document.body.scrollHeight + 4}px`; } catch { /* another origin */ } };
    new ResizeObserver(fit).observe(document.body);
  }
})();

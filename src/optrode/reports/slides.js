"use strict";
// Sliders over steps: maps of a study, attention patterns at checkpoints; and the axis of training steps.
(() => {
  const { data, drawPlot, shade, stops } = dom;
  const place = (key) => document.querySelector(`[data-figure="${key}"]`);
  const whole = (step) => step.toLocaleString("en-US");
  // A slider says its step in words, beside it and to screen readers.
  const follow = (slider, words, show) => {
    const output = slider.parentElement.querySelector("output");
    const act = () => {
      const ix = Number(slider.value);
      output.textContent = words[ix];
      slider.setAttribute("aria-valuetext", words[ix]);
      show(ix);
    };
    slider.value = words.length - 1;
    slider.addEventListener("input", act);
    act();
  };

  // ---- Maps of a study: the same cells at each step.
  const reading = (shown, value, row, column) => {
    const number = value === null ? "none" : String(Number(value.toPrecision(3))).replace("-", "−");
    return `<b>${shown.rows[row]}, ${shown.columns[column]}</b><br>${number} ${shown.unit}`.trimEnd();
  };
  document.querySelectorAll("[data-slides]").forEach((slider) => {
    const key = slider.dataset.slides, shown = data.slides[key];
    follow(slider, shown.steps, (ix) => {
      const cells = shown.cells[ix], [trace] = data.figures[key].data;
      trace.z = cells;
      trace.customdata = cells.map((row, y) => row.map((value, x) => reading(shown, value, y, x)));
      drawPlot(place(key));
    });
  });

  // ---- Curves over steps: one switch for all of them. Step 0 has a place of its own on the logarithmic axis.
  const stepped = Object.entries(data.figures || {}).filter(([, figure]) => figure.views);
  const buttons = [...document.querySelectorAll("[data-view]")];
  let view = "log", now = null;
  const at = (step, zero) => (step === 0 || step === zero ? (view === "log" ? zero : 0) : step);
  const drawSteps = () => stepped.forEach(([key, figure]) => {
    const { zero } = figure.views;
    figure.layout.xaxis = figure.views[view];
    figure.data.forEach((trace) => { trace.x = trace.x.map((step) => at(step, zero)); });
    figure.layout.shapes = figure.layout.shapes.filter((shape) => shape.name !== "now");
    if (now !== null) {
      const x = at(now, zero);
      figure.layout.shapes.push({ type: "line", name: "now", yref: "paper", y0: 0, y1: 1, x0: x, x1: x, layer: "below", line: { width: 1.6 } });
    }
    drawPlot(place(key));
  });
  buttons.forEach((button) => button.addEventListener("click", () => {
    ({ view } = button.dataset);
    buttons.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.view === view)));
    drawSteps();
  }));

  // ---- Attention patterns: one byte per cell, one pixel per cell.
  if (!data.forming) return;
  const { steps, blocks } = data.forming;
  const bytes = blocks.map((block) => Uint8Array.from(atob(block.cells), (char) => char.charCodeAt(0)));
  const canvases = [...document.querySelectorAll("canvas[data-block]")];
  let chosen = steps.length - 1;
  // The latest checkpoint up to the step; the first where there is none yet.
  const checkpoint = (block) => Math.max(0, block.steps.findLastIndex((step) => step <= steps[chosen]));
  const pattern = (canvas) => {
    const { block, layer, head } = canvas.dataset, shown = blocks[block], size = shown.n * shown.n;
    const start = ((checkpoint(shown) * shown.layers + Number(layer)) * shown.heads + Number(head)) * size;
    return bytes[block].subarray(start, start + size);
  };
  const drawPattern = (canvas, scale) => {
    const { n } = blocks[canvas.dataset.block], cells = pattern(canvas);
    canvas.width = n;
    canvas.height = n;
    const context = canvas.getContext("2d"), image = context.createImageData(n, n);
    cells.forEach((value, ix) => image.data.set([...shade(value / 255, scale), 255], 4 * ix));
    context.putImageData(image, 0, 0);
  };
  const drawPatterns = () => {
    const scale = stops();
    canvases.forEach((canvas) => drawPattern(canvas, scale));
  };
  const pointed = new Map();
  const tell = (canvas) => {
    const output = canvas.parentElement.querySelector("output"), cell = pointed.get(canvas);
    if (!cell) {
      output.textContent = "";
      return;
    }
    const { tokens, n } = blocks[canvas.dataset.block], [row, column] = cell;
    output.textContent = `${tokens[row]} → ${tokens[column]}: ${(pattern(canvas)[row * n + column] / 255).toFixed(2)}`;
  };
  canvases.forEach((canvas) => {
    const { n } = blocks[canvas.dataset.block];
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const place = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width].map((share) => Math.floor(n * share));
      pointed.set(canvas, place.every((ix) => ix >= 0 && ix < n) ? place : null);
      tell(canvas);
    });
    canvas.addEventListener("pointerleave", () => { pointed.delete(canvas); tell(canvas); });
  });
  follow(document.querySelector("[data-forming]"), steps.map(whole), (ix) => {
    chosen = ix;
    document.querySelectorAll("[data-at]").forEach((output) => {
      const block = blocks[output.dataset.at];
      output.textContent = `at step ${whole(block.steps[checkpoint(block)])}`;
    });
    drawPatterns();
    pointed.forEach((cell, canvas) => tell(canvas));
    now = steps[chosen];
    drawSteps();
  });
  dom.painters.push(drawPatterns);
})();

// D's side of it: what it thinks of real and generated pictures, and what it wants changed.
import { json, latestOnly, fetchImage } from "./api.js";
import { selectField, integerField, h, helpNote, notice, formatNumber, replaceOptions, announce, segmented, formatCompact, slider, isTyping, formatInteger } from "./dom.js";
import { reproduce } from "./reproduce.js";
import { themeColor, ticks } from "./chart.js";
import { imageCanvas, layoutOf, paintTile } from "./images.js";

const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));

export async function mount({ host, signal, state, id, run, events }) {
  host.append(h("h2", { class: "visually-hidden" }, "Discriminator"), h("p", { class: "lead" }, "Two networks play. ", h("b", { class: "fake" }, "G"), " draws pictures out of random numbers; ", h("b", { class: "real" }, "D"), " says of each picture whether it is real or drawn. G learns from what D says, and D from being fooled."));
  const logitsSection = h("section", { class: "block" }), table = h("section", { class: "block" });
  host.append(logitsSection);
  await logitHistograms(logitsSection, { signal, state, id, events });
  host.append(table);
  await discriminatorImages(table, { signal, state, id, run, events });
}

async function logitHistograms(host, { signal, state, id, events }) {
  let data = await json("/api/logits", { run: id }, signal);
  const title = h("h2", {}, "What D believes, over time");
  const explained = helpNote("How to read this",
    "D answers each picture with one number, its logit. To the right of the dashed line D calls a picture real, to the left it calls it generated; the further out, the surer it is.",
    "At a good moment the two hills overlap: D is often wrong, so G can still learn from it. Hills far apart mean that D wins without effort; hills on top of each other mean that D can tell nothing any more.",
    "The band below is the same over the whole run: every column is one moment, higher means more real, stronger colour means more pictures.");
  const column = h("div", { class: "logits" });
  host.append(title, h("div", { class: "with-help" }, column, explained));
  const histogram = h("canvas", { class: "plot logit-histogram", role: "img" }), historyBand = h("canvas", { class: "plot logit-history", "aria-hidden": "true" });
  const caption = h("p", { class: "readout", "aria-live": "polite" });
  const scrub = h("input", { type: "range", class: "scrub", min: 0, step: 1, "aria-label": "Moment" });
  let index = 0;

  const draw = () => {
    const moment = data.history[index];
    if (!moment) return;
    scrub.value = String(index);
    caption.replaceChildren(h("b", {}, `${formatInteger(moment.images_seen)} images`), h("span", { class: "real" }, `real: ${formatNumber(moment.real_mean)} on average, ${fractionCalledReal(data, moment.real)} called real`), h("span", { class: "fake" }, `generated: ${formatNumber(moment.fake_mean)} on average, ${fractionCalledReal(data, moment.fake)} called real`));
    scrub.setAttribute("aria-valuetext", `${formatInteger(moment.images_seen)} images`);
    histogram.setAttribute("aria-label", caption.textContent);
    drawHistogram(histogram, data, moment);
    drawHistory(historyBand, data, index);
  };
  const go = (next) => {
    index = Math.min(data.history.length - 1, Math.max(0, next));
    state.set({ at: index === data.history.length - 1 ? null : data.history[index].images_seen });
    draw();
  };
  const build = () => {
    if (!data.history.length) return column.replaceChildren(notice("This run's journal does not tell what D thought at each sheet: it was trained before that was written down, or no sheet has been saved yet. The opinions below are D's present ones."));
    scrub.max = data.history.length - 1;
    const key = h("ul", { class: "legend" }, h("li", { data: { color: "real" } }, h("span", { class: "name" }, "real")), h("li", { data: { color: "fake" } }, h("span", { class: "name" }, "generated")), h("li", {}, h("span", { class: "dash" }), h("span", { class: "name" }, "the decision line")));
    column.replaceChildren(key, histogram, caption, historyBand, scrub);
    const found = data.history.findIndex((moment) => moment.images_seen === state.number("at", NaN));
    index = found < 0 ? data.history.length - 1 : found;
    draw();
  };
  build();
  scrub.addEventListener("input", () => go(Number(scrub.value)));
  historyBand.addEventListener("pointerdown", (event) => {
    const box = historyBand.getBoundingClientRect();
    go(Math.floor(((event.clientX - box.left) / box.width) * data.history.length));
  });
  new ResizeObserver(draw).observe(column);
  document.addEventListener("theme", draw, { signal });
  document.addEventListener("keydown", (event) => {
    if (isTyping(event) || event.target.closest(".discriminator-images") || !data.history.length) return;
    const next = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: data.history.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    go(next);
    announce(caption.textContent);
  }, { signal });
  const again = latestOnly(async () => {
    const last = index >= data.history.length - 1, seen = data.history[index]?.images_seen;
    data = await json("/api/logits", { run: id }, signal);
    if (last || !data.history.length || data.history[index]?.images_seen !== seen) build(); // many moments are thinned anew
    else ((scrub.max = data.history.length - 1), draw());
  }, () => null);
  events.addEventListener("samples", () => again(), { signal });
}

/** How many percent of the counted pictures lie on D's real side. */
function fractionCalledReal(data, counts) {
  const total = counts.reduce((sum, each) => sum + each, 0);
  const right = counts.reduce((sum, each, index) => sum + ((data.edges[index] + data.edges[index + 1]) / 2 > data.decision_boundary ? each : 0), 0);
  return total ? `${Math.round((100 * right) / total)} %` : "–";
}

function sized(canvas, height) {
  const width = canvas.clientWidth, ratio = devicePixelRatio;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.font = "11px Plex, system-ui, sans-serif";
  return [ctx, width];
}

/** The logits' range with the decision line well inside. The wild first tenth of a run does not count, unless it is what is looked at. */
function logitRange(data, shown) {
  const late = data.history.slice(Math.ceil(data.history.length / 10)), counted = shown ? [...late, shown] : late.length ? late : data.history;
  const used = data.edges.slice(0, -1).map((_, bin) => counted.some((moment) => moment.real[bin] || moment.fake[bin]));
  const low = Math.min(data.edges[Math.max(0, used.indexOf(true))], data.decision_boundary), high = Math.max(data.edges[used.lastIndexOf(true) + 1] ?? data.edges.at(-1), data.decision_boundary);
  const room = 0.25 * (high - low || 1);
  return [Math.min(low, data.decision_boundary - room), Math.max(high, data.decision_boundary + room)];
}

function drawHistogram(canvas, data, moment) {
  const height = 220, [ctx, width] = sized(canvas, height), middle = height / 2;
  if (!width) return;
  const [low, high] = logitRange(data, moment), x = (value) => ((value - low) / (high - low)) * (width - 24) + 12;
  const most = Math.max(1, ...moment.real, ...moment.fake);
  for (const [name, sign] of [["real", -1], ["fake", 1]]) {
    ctx.fillStyle = themeColor(name);
    moment[name].forEach((count, index) => {
      const left = x(data.edges[index]), right = x(data.edges[index + 1]), tall = (count / most) * (middle - 26);
      ctx.fillRect(left + 0.5, sign < 0 ? middle - 9 - tall : middle + 9, Math.max(1, right - left - 1), tall);
    });
  }
  ctx.fillStyle = themeColor("muted");
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  for (const value of ticks(low, high, 8)) ctx.fillText(formatNumber(value), x(value), middle);
  ctx.strokeStyle = themeColor("ink");
  ctx.setLineDash([4, 3]);
  ctx.beginPath();
  for (const [from, to] of [[12, middle - 10], [middle + 10, height - 4]]) {
    ctx.moveTo(x(data.decision_boundary), from);
    ctx.lineTo(x(data.decision_boundary), to);
  }
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.fillStyle = themeColor("ink");
  ctx.textBaseline = "top";
  const tight = width < 480;
  ctx.textAlign = "right";
  ctx.fillText(tight ? "← generated" : "← D says generated", x(data.decision_boundary) - 8, 0);
  ctx.textAlign = "left";
  ctx.fillText(tight ? "real →" : "D says real →", x(data.decision_boundary) + 8, 0);
}

function drawHistory(canvas, data, index) {
  const height = 150, [ctx, width] = sized(canvas, height), [low, high] = logitRange(data, null);
  if (!width) return;
  const y = (value) => height - ((value - low) / (high - low)) * height, step = width / data.history.length;
  data.history.forEach((moment, at) => {
    for (const name of ["real", "fake"]) {
      const most = Math.max(1, ...moment[name]);
      ctx.fillStyle = themeColor(name);
      moment[name].forEach((count, bin) => {
        if (!count) return;
        ctx.globalAlpha = 0.12 + 0.78 * (count / most);
        const left = at * step + (name === "real" ? 0 : step / 2);
        ctx.fillRect(left, y(data.edges[bin + 1]), step / 2 + 0.3, y(data.edges[bin]) - y(data.edges[bin + 1]) + 0.3);
      });
    }
  });
  ctx.globalAlpha = 1;
  ctx.strokeStyle = themeColor("ink");
  ctx.setLineDash([4, 3]);
  ctx.beginPath();
  ctx.moveTo(0, y(data.decision_boundary));
  ctx.lineTo(width, y(data.decision_boundary));
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.strokeRect(index * step + 0.5, 0.5, Math.max(2, step - 1), height - 1);
}

async function discriminatorImages(host, { signal, state, id, run, events }) {
  const many = () => state.number("count", 16), first = () => state.number("seed", 0);
  const queryParameters = () => ({ run: id, seed: first(), count: many(), checkpoint: state.get("checkpoint") });
  const trouble = h("div");
  const order = () => state.get("order", "seed");
  const views = { fake: imageRow("Generated", "fake"), real: imageRow("Real", "real") };
  const detailView = detail();
  let data = null, bitmaps = {}, chosen = state.number("picked", 0);

  const draw = latestOnly(async () => {
    const parameters = queryParameters();
    const found = await json("/api/discriminator", parameters, signal);
    const [fake, gradient, real] = await Promise.all(["fake", "gradient", "real"].map((kind) => fetchImage("/api/discriminator.png", { ...parameters, kind }, signal).catch((error) => (kind === "real" ? null : Promise.reject(error)))));
    data = found;
    bitmaps = { fake, gradient, real };
    trouble.replaceChildren();
    show();
  }, (error) => {
    trouble.replaceChildren(notice(error.message, "error"));
    body.hidden = true;
  });

  function show() {
    body.hidden = false;
    const layout = data.layout;
    for (const kind of ["fake", "real"]) {
      const found = { list: data[kind] ?? [] };
      const indices = Array.from({ length: kind === "fake" ? layout.count : bitmaps.real ? Math.min(layout.count, run.layout.count) : 0 }, (_, index) => index);
      if (order() === "logit" && found.list.length) indices.sort((a, b) => (found.list[b] ?? 0) - (found.list[a] ?? 0));
      views[kind].show(indices, found.list, data.has_probabilities, layout, bitmaps[kind], kind === "fake" && state.get("gradient") === "1" ? bitmaps.gradient : null);
    }
    detailView.show(Math.min(chosen, layout.count - 1));
  }

  function imageRow(name, kind) {
    const grid = h("div", { class: "discriminator-images" }), caption = h("span", { class: "count" });
    return {
      element: h("div", { class: "image-row" }, h("h3", {}, name), caption, grid),
      show(indices, logits, probability, layout, bitmap, over) {
        const known = logits.length > 0;
        caption.textContent = known ? `D calls ${logits.filter((logit) => logit > 0).length} of ${logits.length} real` : kind === "real" && indices.length ? "D's opinion of these was not written down" : "";
        grid.style.setProperty("--columns", Math.max(3, Math.min(8, Math.ceil(Math.sqrt(layout.count)))));
        if (grid.children.length !== indices.length) grid.replaceChildren(...indices.map(() => cell(kind, layout)));
        const size = { ...layout, ...(kind === "real" ? layoutOf(layout.count, layout.width, layout.height) : {}) };
        indices.forEach((index, at) => {
          const button = grid.children[at], logit = logits[index];
          const words = logit === undefined ? "–" : probability ? `${Math.round(100 * sigmoid(logit))} %` : formatNumber(logit);
          button.dataset.says = logit === undefined ? "" : logit > 0 ? "real" : "fake";
          button.style.setProperty("--sure", `${logit === undefined ? 0 : Math.round(100 * Math.min(1, Math.abs(probability ? 2 * sigmoid(logit) - 1 : logit / 4)))}%`);
          button.querySelector("span").textContent = words;
          const sentence = `${kind === "fake" ? `Generated, seed ${first()}, number ${index}` : `Real picture ${index + 1}`}: D says ${logit === undefined ? "nothing" : `${logit > 0 ? "real" : "generated"}, ${words}`}`;
          button.setAttribute(kind === "fake" ? "aria-label" : "title", sentence);
          if (kind === "fake") {
            button.setAttribute("aria-pressed", index === chosen);
            button.onclick = () => ((chosen = index), state.set({ picked: index }), show());
          }
          if (bitmap) paintTile(button.querySelector("canvas"), over ?? bitmap, size, index);
        });
      },
    };
  }

  function cell(kind, layout) {
    const canvas = imageCanvas(layout.width, layout.height, "");
    return kind === "fake" ? h("button", { type: "button" }, canvas, h("span")) : h("figure", {}, canvas, h("span"));
  }

  function detail() {
    const [sample, gradient, both] = ["The picture", "What D wants changed", "One over the other"].map((name) => [imageCanvas(1, 1, name), name]);
    const words = h("p", { class: "readout" });
    const mix = slider({ label: "How much of the map", min: 0, max: 1, step: 0.05, value: state.number("mix", 0.5), format: (value) => `${Math.round(100 * value)} %`, onChange: (value) => (state.set({ mix: value }), overlay()) });
    const overlay = () => both[0].parentElement.style.setProperty("--mix", state.number("mix", 0.5));
    const under = imageCanvas(1, 1, "");
    const figure = ([canvas, name], extra) => h("figure", {}, h("figcaption", {}, name), h("div", { class: "image-frame stack" }, extra, canvas));
    const element = h("div", { class: "detail" }, h("div", { class: "triple" }, figure(sample), figure(gradient), figure(both, under)), words, mix.element);
    overlay();
    return {
      element,
      show(index) {
        const logit = data.fake[index];
        words.textContent = `Picture ${index}: D's logit is ${formatNumber(logit)}${data.has_probabilities ? `, which means ${Math.round(100 * sigmoid(logit))} % real` : ""}.`;
        for (const [canvas, bitmap] of [[sample[0], bitmaps.fake], [gradient[0], bitmaps.gradient], [under, bitmaps.fake], [both[0], bitmaps.gradient]]) paintTile(canvas, bitmap, data.layout, index);
      },
    };
  }

  const seed = integerField("Seed", first(), 0, 1e9, (value) => (state.set({ seed: value }), draw()));
  const body = h("div", { class: "table", hidden: true }, h("div", { class: "with-help" }, h("div", { class: "image-rows" }, views.fake.element, views.real.element),
    helpNote("How to read this", "Every picture has a frame in the colour of what D says of it: teal for real, plum for generated, paler the less sure it is. The number below is D's belief that the picture is real.", "Generated pictures in a teal frame have fooled D. Look for what they have that the others lack: that is what D has learned to look for.", "A loss that gives logits no scale has no percentages; the logit itself stands there instead.")),
  h("h2", {}, "What the judge wants changed"), h("div", { class: "with-help" }, detailView.element,
    helpNote("How to read this", "This is all that G ever gets to know: for every pixel, whether D would find the picture more real if it were brighter (orange) or darker (blue). Pale pixels do not matter to D.", "G never sees a real picture. It follows this map, a little with every step, by changing how it draws.", "Good maps point at shapes: an edge, a stroke that is too thin. A map that looks like noise means that D has little to teach here.")));
  const checkpointOptions = () => [["", "newest"], ...run.checkpoints.map((each) => [each.images_seen, `${formatCompact(each.images_seen)}${each.best ? ", best" : ""}`])];
  const networksField = selectField("Networks of", checkpointOptions(), state.get("checkpoint", ""), (value) => (state.set({ checkpoint: value }), draw()));
  events.addEventListener("run", () => replaceOptions(networksField, checkpointOptions(), state.get("checkpoint", "")), { signal });
  host.append(h("h2", {}, "What D thinks of each picture"),
    h("div", { class: "controls" }, seed.element, h("button", { type: "button", on: { click: () => (seed.set(first() + 1), state.set({ seed: first() + 1 }), draw()) } }, "Next seed"),
      selectField("Pictures", [[9, "9"], [16, "16"], [36, "36"], [64, "64"]], many(), (value) => (state.set({ count: value }), draw())),
      networksField,
      segmented("Order", [["seed", "as drawn"], ["logit", "most real first"]], order(), (value) => (state.set({ order: value }), data && show())),
      segmented("Show", [["", "pictures"], ["1", "heat maps"]], state.get("gradient", ""), (value) => (state.set({ gradient: value }), data && show()))),
    trouble, body, reproduce(id, () => ({ view: "discriminator", seed: first(), count: many(), checkpoint: state.get("checkpoint") })));
  await draw();
}

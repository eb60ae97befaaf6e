// The discriminator: its logits of real and generated images, and its input gradients.
import { json, latestOnly, fetchImage } from "./api.js";
import { selectField, integerField, h, helpNote, notice, formatNumber, replaceOptions, announce, segmented, formatCompact, slider, isTyping, formatInteger } from "./dom.js";
import { reproduce } from "./reproduce.js";
import { themeColor, ticks } from "./chart.js";
import { imageCanvas, layoutOf, paintTile } from "./images.js";

const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));

export async function mount({ host, signal, state, id, run, events }) {
  host.append(h("h2", { class: "visually-hidden" }, "Discriminator"), h("p", { class: "lead" }, "A GAN trains two networks. The generator ", h("b", { class: "fake" }, "G"), " maps random numbers to images. The discriminator ", h("b", { class: "real" }, "D"), " classifies images as real or generated. G learns from D's gradients, D from its errors."));
  const logitsSection = h("section", { class: "block" }), table = h("section", { class: "block" });
  host.append(logitsSection);
  await logitHistograms(logitsSection, { signal, state, id, events });
  host.append(table);
  await discriminatorImages(table, { signal, state, id, run, events });
}

async function logitHistograms(host, { signal, state, id, events }) {
  let data = await json("/api/logits", { run: id }, signal);
  const title = h("h2", {}, "D's logits over training");
  const explained = helpNote("How to read this",
    "D outputs one number per image, its logit. Right of the dashed line D classifies an image as real, left of it as generated. A larger distance means higher confidence.",
    "In healthy training the two histograms overlap in part: D is often wrong, and G can learn from it. Separate histograms mean that D wins easily. Identical histograms mean that D cannot tell real from generated.",
    "The band below shows the same over the whole run. Each column is one sheet, higher means more real, and stronger color means more images.");
  const column = h("div", { class: "logits" });
  host.append(title, h("div", { class: "with-help" }, column, explained));
  const histogram = h("canvas", { class: "plot logit-histogram", role: "img" }), historyBand = h("canvas", { class: "plot logit-history", "aria-hidden": "true" });
  const caption = h("p", { class: "readout", "aria-live": "polite" });
  const scrub = h("input", { type: "range", class: "scrub", min: 0, step: 1, "aria-label": "Sheet" });
  let index = 0;

  const draw = () => {
    const entry = data.history[index];
    if (!entry) return;
    scrub.value = String(index);
    caption.replaceChildren(h("b", {}, `${formatInteger(entry.images_seen)} images`), h("span", { class: "real" }, `real: ${formatNumber(entry.real_mean)} on average, ${percentCalledReal(data, entry.real)} classified as real`), h("span", { class: "fake" }, `generated: ${formatNumber(entry.fake_mean)} on average, ${percentCalledReal(data, entry.fake)} classified as real`));
    scrub.setAttribute("aria-valuetext", `${formatInteger(entry.images_seen)} images`);
    histogram.setAttribute("aria-label", caption.textContent);
    drawHistogram(histogram, data, entry);
    drawHistory(historyBand, data, index);
  };
  const go = (next) => {
    index = Math.min(data.history.length - 1, Math.max(0, next));
    state.set({ at: index === data.history.length - 1 ? null : data.history[index].images_seen });
    draw();
  };
  const build = () => {
    if (!data.history.length) return column.replaceChildren(notice("This run's journal has no logits: no sheet has been saved yet, or it was trained with an older version. The logits below are those of the current networks."));
    scrub.max = data.history.length - 1;
    const key = h("ul", { class: "legend" }, h("li", { data: { color: "real" } }, h("span", { class: "name" }, "real")), h("li", { data: { color: "fake" } }, h("span", { class: "name" }, "generated")), h("li", {}, h("span", { class: "dash" }), h("span", { class: "name" }, "decision boundary")));
    column.replaceChildren(key, histogram, caption, historyBand, scrub);
    const found = data.history.findIndex((entry) => entry.images_seen === state.number("at", NaN));
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
  const reload = latestOnly(async () => {
    const last = index >= data.history.length - 1, seen = data.history[index]?.images_seen;
    data = await json("/api/logits", { run: id }, signal);
    if (last || !data.history.length || data.history[index]?.images_seen !== seen) build(); // the server has downsampled the history again
    else ((scrub.max = data.history.length - 1), draw());
  }, () => null);
  events.addEventListener("samples", () => reload(), { signal });
}

/** Percentage of the counted images that D classifies as real. */
function percentCalledReal(data, counts) {
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

/** The range of the logits, with the decision boundary well inside. Ignores the unstable first tenth of a run, except the shown entry. */
function logitRange(data, shown) {
  const late = data.history.slice(Math.ceil(data.history.length / 10)), counted = shown ? [...late, shown] : late.length ? late : data.history;
  const used = data.edges.slice(0, -1).map((_, bin) => counted.some((entry) => entry.real[bin] || entry.fake[bin]));
  const low = Math.min(data.edges[Math.max(0, used.indexOf(true))], data.decision_boundary), high = Math.max(data.edges[used.lastIndexOf(true) + 1] ?? data.edges.at(-1), data.decision_boundary);
  const room = 0.25 * (high - low || 1);
  return [Math.min(low, data.decision_boundary - room), Math.max(high, data.decision_boundary + room)];
}

function drawHistogram(canvas, data, entry) {
  const height = 220, [ctx, width] = sized(canvas, height), middle = height / 2;
  if (!width) return;
  const [low, high] = logitRange(data, entry), x = (value) => ((value - low) / (high - low)) * (width - 24) + 12;
  const most = Math.max(1, ...entry.real, ...entry.fake);
  for (const [name, sign] of [["real", -1], ["fake", 1]]) {
    ctx.fillStyle = themeColor(name);
    entry[name].forEach((count, index) => {
      const left = x(data.edges[index]), right = x(data.edges[index + 1]), barHeight = (count / most) * (middle - 26);
      ctx.fillRect(left + 0.5, sign < 0 ? middle - 9 - barHeight : middle + 9, Math.max(1, right - left - 1), barHeight);
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
  const isNarrow = width < 480;
  ctx.textAlign = "right";
  ctx.fillText(isNarrow ? "← generated" : "← D: generated", x(data.decision_boundary) - 8, 0);
  ctx.textAlign = "left";
  ctx.fillText(isNarrow ? "real →" : "D: real →", x(data.decision_boundary) + 8, 0);
}

function drawHistory(canvas, data, index) {
  const height = 150, [ctx, width] = sized(canvas, height), [low, high] = logitRange(data, null);
  if (!width) return;
  const y = (value) => height - ((value - low) / (high - low)) * height, step = width / data.history.length;
  data.history.forEach((entry, at) => {
    for (const name of ["real", "fake"]) {
      const most = Math.max(1, ...entry[name]);
      ctx.fillStyle = themeColor(name);
      entry[name].forEach((count, bin) => {
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
  const errorBox = h("div");
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
    errorBox.replaceChildren();
    show();
  }, (error) => {
    errorBox.replaceChildren(notice(error.message, "error"));
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
        caption.textContent = known ? `D classifies ${logits.filter((logit) => logit > 0).length} of ${logits.length} as real` : kind === "real" && indices.length ? "the journal has no logits of these" : "";
        grid.style.setProperty("--columns", Math.max(3, Math.min(8, Math.ceil(Math.sqrt(layout.count)))));
        if (grid.children.length !== indices.length) grid.replaceChildren(...indices.map(() => cell(kind, layout)));
        const size = { ...layout, ...(kind === "real" ? layoutOf(layout.count, layout.width, layout.height) : {}) };
        indices.forEach((index, at) => {
          const button = grid.children[at], logit = logits[index];
          const words = logit === undefined ? "–" : probability ? `${Math.round(100 * sigmoid(logit))} %` : formatNumber(logit);
          button.dataset.prediction = logit === undefined ? "" : logit > 0 ? "real" : "fake";
          button.style.setProperty("--confidence", `${logit === undefined ? 0 : Math.round(100 * Math.min(1, Math.abs(probability ? 2 * sigmoid(logit) - 1 : logit / 4)))}%`);
          button.querySelector("span").textContent = words;
          const sentence = `${kind === "fake" ? `Generated, seed ${first()}, number ${index}` : `Real image ${index + 1}`}: D's prediction is ${logit === undefined ? "unknown" : `${logit > 0 ? "real" : "generated"}, ${words}`}`;
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
    const [sample, gradient, both] = ["Image", "Input gradient", "Overlay"].map((name) => [imageCanvas(1, 1, name), name]);
    const words = h("p", { class: "readout" });
    const opacity = slider({ label: "Gradient opacity", min: 0, max: 1, step: 0.05, value: state.number("opacity", 0.5), format: (value) => `${Math.round(100 * value)} %`, onChange: (value) => (state.set({ opacity: value }), overlay()) });
    const overlay = () => both[0].parentElement.style.setProperty("--opacity", state.number("opacity", 0.5));
    const under = imageCanvas(1, 1, "");
    const figure = ([canvas, name], extra) => h("figure", {}, h("figcaption", {}, name), h("div", { class: "image-frame stack" }, extra, canvas));
    const element = h("div", { class: "detail" }, h("div", { class: "triple" }, figure(sample), figure(gradient), figure(both, under)), words, opacity.element);
    overlay();
    return {
      element,
      show(index) {
        const logit = data.fake[index];
        words.textContent = `Image ${index}: D's logit is ${formatNumber(logit)}${data.has_probabilities ? `, a probability of ${Math.round(100 * sigmoid(logit))} % for real` : ""}.`;
        for (const [canvas, bitmap] of [[sample[0], bitmaps.fake], [gradient[0], bitmaps.gradient], [under, bitmaps.fake], [both[0], bitmaps.gradient]]) paintTile(canvas, bitmap, data.layout, index);
      },
    };
  }

  const seed = integerField("Seed", first(), 0, 1e9, (value) => (state.set({ seed: value }), draw()));
  const body = h("div", { class: "table", hidden: true }, h("div", { class: "with-help" }, h("div", { class: "image-rows" }, views.fake.element, views.real.element),
    helpNote("How to read this", "The frame of an image shows D's prediction: teal for real, plum for generated, paler for lower confidence. The number below is D's probability that the image is real.", "Generated images with a teal frame fool D. Compare them with the others to find the features that D relies on.", "Losses without a probability, such as WGAN, show the logit instead.")),
  h("h2", {}, "D's input gradient"), h("div", { class: "with-help" }, detailView.element,
    helpNote("How to read this", "The gradient of D's logit with respect to the pixels: D's logit rises if an orange pixel gets brighter or a blue one darker. Pale pixels have little effect.", "G never sees a real image. This gradient is its only training signal.", "A useful gradient marks shapes, such as an edge or a stroke that is too thin. A gradient that looks like noise teaches G little.")));
  const checkpointOptions = () => [["", "newest"], ...run.checkpoints.map((each) => [each.images_seen, `${formatCompact(each.images_seen)}${each.best ? ", best" : ""}`])];
  const networksField = selectField("Networks of", checkpointOptions(), state.get("checkpoint", ""), (value) => (state.set({ checkpoint: value }), draw()));
  events.addEventListener("run", () => replaceOptions(networksField, checkpointOptions(), state.get("checkpoint", "")), { signal });
  host.append(h("h2", {}, "D's prediction for each image"),
    h("div", { class: "controls" }, seed.element, h("button", { type: "button", on: { click: () => (seed.set(first() + 1), state.set({ seed: first() + 1 }), draw()) } }, "Next seed"),
      selectField("Images", [[9, "9"], [16, "16"], [36, "36"], [64, "64"]], many(), (value) => (state.set({ count: value }), draw())),
      networksField,
      segmented("Order", [["seed", "by seed"], ["logit", "most real first"]], order(), (value) => (state.set({ order: value }), data && show())),
      segmented("Show", [["", "images"], ["1", "gradients"]], state.get("gradient", ""), (value) => (state.set({ gradient: value }), data && show()))),
    errorBox, body, reproduce(id, () => ({ view: "discriminator", seed: first(), count: many(), checkpoint: state.get("checkpoint") })));
  await draw();
}

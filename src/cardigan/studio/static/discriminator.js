// The discriminator: its logits of real and generated images, and its input gradients.
import { json, latestOnly, fetchImage } from "./api.js";
import { selectField, integerField, h, helpNote, loadingOverlay, notice, formatNumber, replaceOptions, announce, segmented, formatCompact, slider, isTyping, formatInteger } from "./dom.js";
import { reproduce } from "./reproduce.js";
import { themeColor, ticks } from "./chart.js";
import { imageCanvas, layoutOf, paintTile } from "./images.js";

const percent = (fraction) => (fraction === null || fraction === undefined ? "–" : `${Math.round(100 * fraction)} %`);
/** Whether D classifies single images. Otherwise the loss compares pairs, and a logit means something only next to others. */
const isClassifier = (data) => data.decision_boundary !== null;
const PAIRS = "A real image has the higher logit in";

export async function mount({ host, signal, state, id, run, events }) {
  host.append(h("h2", { class: "visually-hidden" }, "Discriminator"), h("p", { class: "lead" }, "A GAN trains two networks. The generator ", h("b", { class: "fake" }, "G"), " maps random numbers to images. The discriminator ", h("b", { class: "real" }, "D"), " tells real images from generated ones. G learns from D's gradients, D from its errors."));
  const logitsSection = h("section", { class: "block" }), table = h("section", { class: "block" });
  host.append(logitsSection);
  await logitHistograms(logitsSection, { signal, state, id, events });
  host.append(table);
  await discriminatorImages(table, { signal, state, id, run, events });
}

async function logitHistograms(host, { signal, state, id, events }) {
  let data = await json("/api/logits", { run: id }, signal);
  const title = h("h2", {}, "D's logits over training");
  const explained = helpNote("How to read this", ...(isClassifier(data)
    ? ["D outputs one number per image, its logit. Right of the dashed line D classifies an image as real, left of it as generated. A larger distance means higher confidence."]
    : ["D outputs one number per image, its logit: higher means more real. This loss compares a real with a generated image, so D has no decision boundary and only differences of logits count. They are shown relative to the midpoint of the real and the generated mean of the same sheet, which is 0.",
      "The percentage counts pairs of one real and one generated image. At 50 % D cannot tell them apart, at 100 % it always can."]),
    "In healthy training the two histograms overlap in part: D is sometimes wrong, and G can learn from it. Separate histograms mean that D wins easily. Identical histograms mean that D cannot tell real from generated.",
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
    const classified = (fraction) => (isClassifier(data) ? `, ${percent(fraction)} classified as real` : "");
    caption.replaceChildren(h("b", {}, `${formatInteger(entry.images_seen)} images`), h("span", { class: "real" }, `real: ${formatNumber(entry.real_mean)} on average${classified(entry.real_classified_real)}`), h("span", { class: "fake" }, `generated: ${formatNumber(entry.fake_mean)} on average${classified(entry.fake_classified_real)}`), isClassifier(data) ? "" : h("span", {}, `${PAIRS} ${percent(entry.real_above_fake)} of the pairs.`));
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
    const key = h("ul", { class: "legend" }, h("li", { data: { color: "real" } }, h("span", { class: "name" }, "real")), h("li", { data: { color: "fake" } }, h("span", { class: "name" }, "generated")), isClassifier(data) ? h("li", {}, h("span", { class: "dash" }), h("span", { class: "name" }, "decision boundary")) : null);
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

const signed = (value) => `${value > 0 ? "+" : ""}${formatNumber(Number(value.toPrecision(3)))}`;

function sized(canvas, height) {
  const width = canvas.clientWidth, ratio = devicePixelRatio;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.font = "11px Plex, system-ui, sans-serif";
  return [ctx, width];
}

/** The range of the logits, with the decision boundary, or the center, well inside. Ignores the unstable first tenth of a run, except the shown entry. */
function logitRange(data, shown) {
  const late = data.history.slice(Math.ceil(data.history.length / 10)), counted = shown ? [...late, shown] : late.length ? late : data.history;
  const used = data.edges.slice(0, -1).map((_, bin) => counted.some((entry) => entry.real[bin] || entry.fake[bin]));
  const middle = data.decision_boundary ?? 0;
  const low = Math.min(data.edges[Math.max(0, used.indexOf(true))], middle), high = Math.max(data.edges[used.lastIndexOf(true) + 1] ?? data.edges.at(-1), middle);
  const room = 0.25 * (high - low || 1);
  return [Math.min(low, middle - room), Math.max(high, middle + room)];
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
  ctx.fillStyle = themeColor("ink");
  ctx.textBaseline = "top";
  const isNarrow = width < 480;
  if (!isClassifier(data)) {
    ctx.textAlign = "left";
    ctx.fillText("← less real", 0, 0);
    ctx.textAlign = "right";
    ctx.fillText("more real →", width, 0);
    return;
  }
  const boundary = x(data.decision_boundary);
  drawDashes(ctx, [[boundary, 12, boundary, middle - 10], [boundary, middle + 10, boundary, height - 4]]);
  ctx.textAlign = "right";
  ctx.fillText(isNarrow ? "← generated" : "← D: generated", boundary - 8, 0);
  ctx.textAlign = "left";
  ctx.fillText(isNarrow ? "real →" : "D: real →", boundary + 8, 0);
}

function drawDashes(ctx, lines) {
  ctx.strokeStyle = themeColor("ink");
  ctx.setLineDash([4, 3]);
  ctx.beginPath();
  for (const [fromX, fromY, toX, toY] of lines) {
    ctx.moveTo(fromX, fromY);
    ctx.lineTo(toX, toY);
  }
  ctx.stroke();
  ctx.setLineDash([]);
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
  if (isClassifier(data)) drawDashes(ctx, [[0, y(data.decision_boundary), width, y(data.decision_boundary)]]);
  ctx.strokeStyle = themeColor("ink");
  ctx.strokeRect(index * step + 0.5, 0.5, Math.max(2, step - 1), height - 1);
}

async function discriminatorImages(host, { signal, state, id, run, events }) {
  const many = () => state.number("count", 16), first = () => state.number("seed", 0);
  const queryParameters = () => ({ run: id, seed: first(), count: many(), checkpoint: state.get("checkpoint") });
  const errorBox = h("div"), frame = h("div", { class: "loading-line" }), overlay = loadingOverlay(frame);
  const order = () => state.get("order", "seed");
  const views = { fake: imageRow("Generated", "fake"), real: imageRow("Real", "real") };
  const detailView = detail(), imagesHelp = h("div");
  let data = null, bitmaps = {}, chosen = state.number("picked", 0);

  const draw = latestOnly(async () => {
    const parameters = queryParameters();
    overlay.start(data ? "Generating …" : "Loading the networks …");
    const found = await json("/api/discriminator", parameters, signal);
    const [fake, gradient, real] = await Promise.all(["fake", "gradient", "real"].map((kind) => fetchImage("/api/discriminator.png", { ...parameters, kind }, signal).catch((error) => (kind === "real" ? null : Promise.reject(error)))));
    data = found;
    bitmaps = { fake, gradient, real };
    overlay.done();
    errorBox.replaceChildren();
    show();
  }, (error) => {
    overlay.done();
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
      views[kind].show(indices, found.list, data[`${kind}_probabilities`], layout, bitmaps[kind], kind === "fake" && state.get("gradient") === "1" ? bitmaps.gradient : null);
    }
    imagesHelp.replaceChildren(helpNote("How to read this", ...(isClassifier(data)
      ? [`The frame of an image shows D's prediction: teal for real, plum for generated, paler for lower confidence. The number below is D's ${data.fake_probabilities ? "probability that the image is real" : "logit, relative to the decision boundary"}.`, "Generated images with a teal frame fool D. Compare them with the others to find the features that D relies on."]
      : ["The number below an image is its logit, relative to the midpoint of the real and the generated mean: higher means more real. This loss compares images with each other, so D gives no probability for a single one.", "Compare the generated images that D finds most real with the others to find the features that D relies on."])));
    detailView.show(Math.min(chosen, layout.count - 1));
  }

  function imageRow(name, kind) {
    const grid = h("div", { class: "discriminator-images" }), caption = h("span", { class: "count" });
    return {
      element: h("div", { class: "image-row" }, h("h3", {}, name), caption, grid),
      show(indices, logits, probabilities, layout, bitmap, over) {
        const boundary = data.decision_boundary, known = logits.length > 0;
        caption.textContent = !known ? (kind === "real" && indices.length ? "the journal has no logits of these" : "") : isClassifier(data) ? `D classifies ${logits.filter((logit) => logit > boundary).length} of ${logits.length} as real` : kind === "real" || data.real_above_fake === null ? "" : `${PAIRS} ${percent(data.real_above_fake)} of the pairs shown`;
        grid.style.setProperty("--columns", Math.max(3, Math.min(8, Math.ceil(Math.sqrt(layout.count)))));
        if (grid.children.length !== indices.length) grid.replaceChildren(...indices.map(() => cell(kind, layout)));
        const size = { ...layout, ...(kind === "real" ? layoutOf(layout.count, layout.width, layout.height) : {}) };
        indices.forEach((index, at) => {
          const button = grid.children[at], logit = logits[index];
          const words = logit === undefined ? "–" : probabilities ? percent(probabilities[index]) : signed(logit - data.center);
          const prediction = logit === undefined || !isClassifier(data) ? "" : logit > boundary ? "real" : "fake";
          button.dataset.prediction = prediction;
          button.style.setProperty("--confidence", `${prediction ? Math.round(100 * Math.min(1, Math.abs(probabilities ? 2 * probabilities[index] - 1 : (logit - boundary) / 4))) : 0}%`);
          button.querySelector("span").textContent = words;
          const sentence = `${kind === "fake" ? `Generated, seed ${first()}, number ${index}` : `Real image ${index + 1}`}: ${logit === undefined ? "D's logit is unknown" : prediction ? `D's prediction is ${prediction === "real" ? "real" : "generated"}, ${words}` : `D's logit is ${words} from the center`}`;
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
        words.textContent = `Image ${index}: D's logit is ${formatNumber(logit)}, ${data.fake_probabilities ? `a probability of ${percent(data.fake_probabilities[index])} for real` : `${signed(logit - data.center)} from the center of the images shown`}.`;
        for (const [canvas, bitmap] of [[sample[0], bitmaps.fake], [gradient[0], bitmaps.gradient], [under, bitmaps.fake], [both[0], bitmaps.gradient]]) paintTile(canvas, bitmap, data.layout, index);
      },
    };
  }

  const seed = integerField("Seed", first(), 0, 1e9, (value) => (state.set({ seed: value }), draw()));
  const body = h("div", { class: "table", hidden: true }, h("div", { class: "with-help" }, h("div", { class: "image-rows" }, views.fake.element, views.real.element),
    imagesHelp),
  h("h2", {}, "D's input gradient"), h("div", { class: "with-help" }, detailView.element,
    helpNote("How to read this", "The gradient of D's logit with respect to the pixels: D's logit rises if an orange pixel gets brighter or a blue one darker. Pale pixels have little effect.", "G never sees a real image. This gradient is its only training signal.", "A useful gradient marks shapes, such as an edge or a stroke that is too thin. A gradient that looks like noise teaches G little.")));
  const checkpointOptions = () => [["", "newest"], ...run.checkpoints.map((each) => [each.images_seen, `${formatCompact(each.images_seen)}${each.best ? ", best" : ""}`])];
  const networksField = selectField("Networks of", checkpointOptions(), state.get("checkpoint", ""), (value) => (state.set({ checkpoint: value }), draw()));
  events.addEventListener("run", () => replaceOptions(networksField, checkpointOptions(), state.get("checkpoint", "")), { signal });
  host.append(h("h2", {}, "D's logit of each image"),
    h("div", { class: "controls" }, seed.element, h("button", { type: "button", on: { click: () => (seed.set(first() + 1), state.set({ seed: first() + 1 }), draw()) } }, "Next seed"),
      selectField("Images", [[9, "9"], [16, "16"], [36, "36"], [64, "64"]], many(), (value) => (state.set({ count: value }), draw())),
      networksField,
      segmented("Order", [["seed", "by seed"], ["logit", "most real first"]], order(), (value) => (state.set({ order: value }), data && show())),
      segmented("Show", [["", "images"], ["1", "gradients"]], state.get("gradient", ""), (value) => (state.set({ gradient: value }), data && show()))),
    frame, errorBox, body, reproduce(id, () => ({ view: "discriminator", seed: first(), count: many(), checkpoint: state.get("checkpoint") })));
  await draw();
}

// The current state of one run: samples next to real images, health, curves.
import { address, json, latestOnly, fetchImage } from "./api.js";
import { h, healthText, notice, formatNumber, announce, segmented, slider, formatInteger } from "./dom.js";
import { lineChart, nearestIndex } from "./chart.js";
import { imageCanvas, gridSize, paintSheetHalf } from "./images.js";
import { reproduce } from "./reproduce.js";

/** [title, [[series, label, color]...]]. Other metrics of a run follow under their own names. */
const CHARTS = [
  ["Losses", [["discriminator_loss", "D", "real"], ["generator_loss", "G", "fake"]]],
  ["D's probability for real", [["d_real", "real", "real"], ["d_fake", "generated", "fake"], ["d_fake_after_update", "generated, after D's update", "third"]]],
  ["D's logits (unbounded)", [["margin_real", "real", "real"], ["margin_fake", "generated", "fake"]]],
  ["Score at checkpoints, ± 2 standard errors (lower is better)", [["score", "score", "fake"]]],
  ["Diversity (1: as diverse as real images)", [["diversity", "diversity", "fake"], ["duplicate_rate", "duplicate rate", "third"]]],
  ["Overfitting", [["holdout_gap", "holdout gap", "real"], ["nearest_distance_ratio", "nearest distance ratio", "fake"]]],
  ["D's logit margin", [["logit_margin", "real − generated", "real"]]],
  ["Gradient norms", [["discriminator_gradient_norm", "D", "real"], ["generator_gradient_norm", "G", "fake"]]],
  ["Penalties", [["r1", "R1", "real"], ["r2", "R2", "fake"], ["wgan_gp", "WGAN-GP", "third"], ["dragan", "DRAGAN", "third"]]],
  ["Augmentation", [["augment_probability", "probability", "real"], ["real_margin_sign", "overfitting sign (mean sign of D on real images)", "third"]]],
  ["Learning rates", [["discriminator_learning_rate", "D", "real"], ["generator_learning_rate", "G", "fake"]]],
  ["Saturated pixel values", [["saturated_fraction", "generated", "fake"], ["saturated_fraction_real", "real", "real"]]],
  ["Images per second", [["images_per_second", "speed", "ink"]]],
  ["Memory, MB", [["memory_megabytes", "memory", "ink"]]],
];
/** Health metrics: [series, label, meaning]. */
const HEALTH_METRICS = [
  ["diversity", "diversity", "1: as diverse as real images"], ["duplicate_rate", "duplicate rate", "0: all images differ; above 0.25: a mode collapse"],
  ["d_fake", "D's probability for generated", "0: D wins easily; 0.5: D cannot tell"], ["holdout_gap", "holdout gap", "above 0.5: D has memorized its images"],
  ["nearest_distance_ratio", "nearest distance ratio", "below 0.5: G copies training images"],
];
/** Charts of parts that a run may leave out, with a test of its settings for whether they are on. */
const OPTIONAL = {
  Augmentation: (settings) => Boolean(settings["augment.operations"]),
  Penalties: (settings) => Object.values(settings["objective.penalties"] ?? {}).some((factor) => factor > 0),
};
const MAX_POINTS = 1200, RELOAD_AFTER_APPENDS = 400;

export async function mount({ host, signal, state, id, run, events }) {
  const sheet = sheets(id, run, signal);
  const healthSection = h("section", { class: "health-panel", "aria-label": "Health", tabindex: "0" });
  const charts = h("div", { class: "charts" });
  const curves = createCurves({ id, run, state, signal, charts });
  host.append(h("h2", { class: "visually-hidden" }, "Live"), h("div", { class: "columns" }, sheet.element, healthSection), curves.toolbar, charts, reproduce(id, () => ({ view: "seeds", seeds: "0-15" })));
  const showHealth = (faults) => healthSection.replaceChildren(...healthElements(run, faults, curves.last));
  showHealth([]);
  events.addEventListener("progress", ({ detail }) => curves.append(detail), { signal });
  events.addEventListener("samples", ({ detail }) => sheet.draw(detail.images_seen), { signal });
  const malformedNotice = notice("", "error");
  malformedNotice.hidden = true;
  charts.before(malformedNotice);
  const showMalformed = (numLines) => {
    malformedNotice.hidden = !numLines;
    malformedNotice.textContent = `The journal has ${numLines === 1 ? "a malformed line" : `${numLines} malformed lines`}, which the curves leave out.`;
  };
  events.addEventListener("malformed-line", () => curves.read(), { signal });
  events.addEventListener("run", () => showHealth(curves.faults()), { signal });
  for (const kind of ["checkpoint", "fault", "rollback", "resume", "stop"]) events.addEventListener(kind, () => curves.read(), { signal });
  events.addEventListener("fault", ({ detail }) => announce(`${detail.name}: ${detail.message ?? ""}`), { signal });
  document.addEventListener("theme", curves.redraw, { signal });
  curves.onFaults((faults, numMalformed) => (showHealth(faults), showMalformed(numMalformed)));
  sheet.draw(run.sheets.at(-1));
  await curves.read();
}

function sheets(id, run, signal) {
  const { layout } = run;
  const [generated, real] = ["Generated", "Real"].map((name) => imageCanvas(...gridSize(layout), `${layout.count} ${name.toLowerCase()} images`));
  const caption = h("span", { class: "count" });
  const draw = latestOnly(async (at) => {
    if (at === undefined) return;
    const bitmap = await fetchImage("/api/sample-sheet", { run: id, images_seen: at }, signal);
    paintSheetHalf(generated, bitmap, layout);
    paintSheetHalf(real, bitmap, layout, true);
    bitmap.close();
    caption.textContent = `after ${formatInteger(at)} images`;
  }, (error) => (caption.textContent = error.message));
  if (!run.sheets.length) caption.textContent = "no sheet yet";
  const half = (canvas, name, words) => h("figure", { class: `sheet ${name.toLowerCase()}` }, h("figcaption", {}, h("h3", {}, name), words), h("div", { class: "image-frame" }, canvas));
  return { draw, element: h("div", { class: "pair" }, half(generated, "Generated", caption), half(real, "Real", h("span", { class: "count" }, "training images"))) };
}

/** The diagnosis: faults, the metrics that show them, and advice. */
function healthElements(run, faults, last) {
  const known = [...new Map(faults.map((fault) => [fault.name, fault])).values()].reverse();
  const head = [h("h3", {}, "Health"), h("p", { class: `headline ${run.health}` }, capital(healthText(run.health))), h("p", {}, run.health_sentence ?? "")];
  const metric = ([name, label, meaning]) => {
    const { value, at } = last(name), old = at < (1 - run.old_fraction) * run.images_seen;
    return h("div", { class: old ? "old" : null }, h("dt", {}, label), h("dd", {}, formatNumber(value)), h("dd", {}, `at ${formatInteger(at)} images${old ? ", old" : ""}. ${meaning}`));
  };
  const metrics = h("dl", { class: "health-metrics" }, HEALTH_METRICS.filter(([name]) => last(name) !== null).map(metric));
  if (!known.length)
    return [...head, h("p", {}, run.state === "training"
      ? "Losses, gradients, the diversity of the images and D's logits on holdout images are checked every two seconds."
      : "Losses, gradients, the diversity of the images and D's logits on holdout images were checked during training."), metrics, stopReason(run)];
  return [...head, ...known.map((fault) => h("article", { class: `fault ${fault.fatal ? "fatal" : "warning"}` },
    h("h4", {}, fault.name, h("small", {}, `at ${formatInteger(fault.images_seen)} images`)), h("p", {}, sentence(fault.message)),
    h("dl", { class: "facts" }, Object.entries(fault.evidence ?? {}).map(([name, value]) => h("div", {}, h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, typeof value === "number" ? formatNumber(value) : value)))),
    fault.advice && h("p", { class: "advice" }, h("b", {}, "Try: "), fault.advice))), metrics, stopReason(run)];
}

const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);
/** A fault's message as a sentence. A damaged line may have none. */
const sentence = (words) => (typeof words === "string" && words ? `${capital(words)}.` : "");
/** Why a run is not training, and the command that continues it. */
const stopReason = (run) => (run.state !== "training" && run.state_sentence ? h("div", { class: "stop-reason" }, h("p", {}, `${run.state_sentence}.`), run.resume_command && h("p", {}, "Continue it with:"), run.resume_command && h("pre", { class: "code" }, run.resume_command)) : "");

function createCurves({ id, run, state, signal, charts }) {
  let data = { images_seen: [], elapsed_seconds: [], series: {}, scores: [], faults: [], events: [], num_readings: 0, is_downsampled: false }, appended = 0, notifyFaults = () => {};
  const chartsByTitle = new Map();
  const view = () => {
    const axis = state.get("axis", "images"), range = state.get("from") ? [state.number("from", 0), state.number("to", Infinity)] : null;
    return { smooth: state.number("smooth", 0), log: state.get("log") === "1", axis, range: range && axis === "seconds" ? range.map(secondsAt) : range };
  };
  const secondsAt = (images) => data.elapsed_seconds[nearestIndex(data.images_seen, images)] ?? 0;
  const imagesAt = (seconds) => data.images_seen[nearestIndex(data.elapsed_seconds, seconds)] ?? 0;
  const xs = () => (state.get("axis", "images") === "seconds" ? data.elapsed_seconds : data.images_seen);
  const amount = h("span", { class: "count" });
  const reset = h("button", { type: "button", class: "quiet", hidden: true, on: { click: () => zoom(null) } }, "Whole range");

  const applyView = () => {
    const now = view();
    reset.hidden = !now.range;
    const whole = xs().length > 1 ? [xs()[0], xs().at(-1)] : null; // checkpoints are fewer than other readings
    chartsByTitle.forEach((chart, title) => chart.setView(title.startsWith("Score at") ? { ...now, range: now.range ?? whole } : now));
  };
  const zoom = (range) => {
    const images = range && state.get("axis") === "seconds" ? range.map(imagesAt) : range;
    state.set(images ? { from: Math.max(0, Math.floor(images[0])), to: Math.ceil(images[1]) } : { from: null, to: null });
    applyView();
    if (data.is_downsampled || !images) read();
  };
  const point = (x) => chartsByTitle.forEach((chart) => chart.point(x));

  function chartsFor(names) {
    const knownNames = new Set(CHARTS.flatMap(([, lines]) => lines.map(([name]) => name)));
    const others = names.filter((name) => !knownNames.has(name)).map((name) => [name.replaceAll("_", " "), [[name, name.replaceAll("_", " "), "ink"]]]);
    let changed = false;
    const order = [...CHARTS, ...others].filter(([title, lines]) => lines.some(([name]) => names.includes(name)) && (OPTIONAL[title]?.(run.settings) ?? true));
    for (const [title, lines] of order) {
      const known = chartsByTitle.get(title);
      const here = lines.filter(([name]) => names.includes(name) || known?.has(name)).map(([name, label, color]) => ({ name, label, color }));
      if (known) {
        if (here.some(({ name }) => !known.has(name))) known.setLines(here); // a metric that was first measured later than the others
        continue;
      }
      chartsByTitle.set(title, lineChart({ title, lines: here, onZoom: zoom, onPoint: point, dots: here[0].name === "score", robust: here[0].name === "score" }));
      changed = true;
    }
    if (changed) charts.replaceChildren(...order.map(([title]) => chartsByTitle.get(title).element));
  }

  function show() {
    const names = Object.keys(data.series).filter((name) => data.series[name].mean.some((value) => value !== null));
    if (data.scores.length) names.push("score");
    chartsFor(names);
    if (!names.length) charts.replaceChildren(notice("No metrics yet: the first ones come a few seconds after the first step."));
    const at = (event) => (state.get("axis") === "seconds" ? event.elapsed_seconds : event.images_seen);
    const marks = [...data.faults.map((fault) => ({ x: at(fault), color: fault.fatal ? "fatal" : "warning" })), ...data.events.filter((event) => ["resume", "rollback"].includes(event.kind)).map((event) => ({ x: at(event), color: "muted" }))];
    const trained = data.scores.filter(({ images_seen }) => images_seen > 0), scores = trained.length ? trained : data.scores; // an untrained network is far off the axis
    const scoreXs = scores.map(at), within = (errors) => scores.map(({ score, error }) => score + errors * (error ?? 0));
    const best = scores.length > 1 ? scores.reduce((found, each) => (each.score < found.score ? each : found)) : null;
    chartsByTitle.forEach((chart, title) => chart.setData(title.startsWith("Score at") ? { x: scoreXs, series: { score: { mean: within(0), low: within(-2), high: within(2) } }, marks: [], best: best && { x: at(best), y: best.score } } : { x: xs(), series: data.series, marks }));
    amount.textContent = `${formatInteger(data.num_readings)} readings${data.is_downsampled ? `, drawn as ${formatInteger(data.images_seen.length)}; bands show minimum and maximum` : ""}`;
    applyView();
  }

  const read = latestOnly(async () => {
    data = await json("/api/curves", { run: id, points: MAX_POINTS, from: state.get("from"), to: state.get("to") }, signal);
    appended = 0;
    show();
    notifyFaults(data.faults, data.num_malformed);
  }, (error) => (amount.textContent = error.message));

  function append(line) {
    if (state.get("from")) return; // a zoomed view does not follow the run
    if (data.images_seen.length && line.images_seen <= data.images_seen.at(-1)) return;
    data.images_seen.push(line.images_seen);
    data.elapsed_seconds.push(line.elapsed_seconds);
    data.num_readings++;
    for (const [name, value] of Object.entries(line)) if (typeof value === "number" && !["images_seen", "elapsed_seconds"].includes(name)) {
      const none = () => new Array(data.images_seen.length - 1).fill(null);
      data.series[name] ??= { mean: none(), low: none(), high: none() };
    }
    for (const [name, each] of Object.entries(data.series)) for (const list of [each.mean, each.low, each.high]) list.push(typeof line[name] === "number" ? line[name] : null);
    if (++appended >= RELOAD_AFTER_APPENDS) read();
    else show();
  }

  const set = (changes) => (state.set(changes), show());
  const toolbar = h("div", { class: "controls" }, h("h2", {}, "Curves"),
    slider({ label: "Smoothing", min: 0, max: 0.99, step: 0.01, value: state.number("smooth", 0), format: (value) => value.toFixed(2), onChange: (value) => set({ smooth: value || null }) }).element,
    segmented("Vertical axis", [["", "linear"], ["1", "log"]], state.get("log", ""), (value) => set({ log: value })),
    segmented("Horizontal axis", [["images", "by images"], ["seconds", "by time"]], state.get("axis", "images"), (value) => set({ axis: value === "images" ? null : value })),
    amount, h("span", { class: "push" }), reset, h("a", { class: "button small", href: address("/api/curves.csv", { run: id }), download: "" }, "CSV"));
  /** The last value of a metric, and the images seen when it was taken. */
  const last = (name) => {
    const index = data.series[name]?.mean.findLastIndex((value) => value !== null) ?? -1;
    return index < 0 ? null : { value: data.series[name].mean[index], at: Math.round(data.images_seen[index]) };
  };
  return { toolbar, read, append, last, faults: () => data.faults, onFaults: (listener) => (notifyFaults = listener), redraw: () => chartsByTitle.forEach((chart) => chart.draw()) };
}

// Up to eight runs side by side: images at the same image count, curves over each other, settings that differ.
import { json, latestOnly, fetchImage } from "./api.js";
import { lineChart, nearestIndex } from "./chart.js";
import { selectField, integerField, h, healthText, notice, formatNumber, announce, formatCompact, formatDuration, formatInteger, loadingOverlay, segmented, slider } from "./dom.js";
import { imageCanvas, gridSize, layoutOf, paint, paintSheetHalf } from "./images.js";
import { reproduce } from "./reproduce.js";
import { MAX_COMPARED } from "./runs.js";

const POINTS = 240, REFRESH_MILLISECONDS = 10000;
/** A sheet whose image count differs from the selected one by more than this fraction is marked. */
const NEAR = 0.02;
const AUGMENTATION = "Augmentation probability";
/** [title, metric]. The scores come before them. */
const CHARTS = [
  ["Diversity (1: as diverse as real images)", "diversity"], ["Loss of D", "discriminator_loss"], ["Loss of G", "generator_loss"],
  ["D's probability for real images", "d_real"], ["D's probability for generated images", "d_fake"], ["D's logit margin (real − generated)", "logit_margin"],
  ["Holdout gap (above 0.5: D has memorized its images)", "holdout_gap"], ["Gradient norm of G", "generator_gradient_norm"], [AUGMENTATION, "augment_probability"],
  ["Images per second", "images_per_second"],
];
const AXES = { images: "images", total: "with the parents' images", seconds: "time", cost: "cost" };
const IGNORED_SETTINGS = new Set(["images_seen"]);
const link = (id, view) => `#/run/${id.split("/").map(encodeURIComponent).join("/")}/${view}`;
const nameOf = (run) => run.title || run.id;

export async function compare({ host, signal, state }) {
  const ids = [...new Set((state.get("runs") ?? "").split(",").filter(Boolean))].slice(0, MAX_COMPARED);
  if (!ids.length) throw new Error("Select runs in the table first, then compare them.");
  const [found, table] = await Promise.all([Promise.all(ids.map((id) => json("/api/run", { run: id }, signal).catch((error) => ({ id, error: error.message })))), json("/api/runs", {}, signal)]);
  const inherited = new Map(table.runs.map((run) => [run.id, run.inherited_images]));
  const runs = found.filter((run) => !run.error).map((run, index) => ({ ...run, color: `c${index + 1}`, dash: index >= 4, inherited_images: inherited.get(run.id) ?? 0 }));
  host.append(h("div", { class: "toolbar" }, h("h1", {}, "Compare"), h("p", { class: "count" }, `${runs.length} ${runs.length === 1 ? "run" : "runs"}`)));
  for (const run of found) if (run.error) host.append(notice(`${run.id}: ${run.error}`, "error"));
  if (!runs.length) return;
  const curves = comparedCurves(runs, { signal, state });
  host.append(factsTable(runs), comparedImages(runs, { signal, state }), curves.element, differences(runs));
  await curves.read();
  if (runs.some((run) => run.state === "training")) {
    const timer = setInterval(() => !document.hidden && curves.read(), REFRESH_MILLISECONDS);
    signal.addEventListener("abort", () => clearInterval(timer));
  }
}

const swatch = (run) => h("span", { class: "swatch", data: { color: run.color, dash: run.dash ? "1" : "0" }, "aria-hidden": "true" });
const cost = (run, seconds) => seconds * (run.num_processes ?? 1);

function factsTable(runs) {
  const columns = [["run", (run) => [swatch(run), h("a", { href: link(run.id, "live") }, nameOf(run)), run.title ? h("small", {}, ` ${run.id}`) : ""]],
    ["started from", (run) => run.started_from?.model ?? "–"], ["images", (run) => formatInteger(run.images_seen)], ["time", (run) => formatDuration(run.elapsed_seconds)],
    ["cost", (run) => formatDuration(cost(run, run.elapsed_seconds))], ["best score", (run) => [formatNumber(run.best_score), run.best_score === null ? "" : h("small", {}, ` to ${run.score_kind}`)]],
    ["health", (run) => h("span", { class: `health ${run.health}` }, healthText(run.health))]];
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Runs" }, h("table", { class: "plain compared" }, h("thead", {}, h("tr", {}, columns.map(([title]) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, runs.map((run) => h("tr", {}, columns.map(([, cell], index) => h(index ? "td" : "th", { scope: index ? null : "row" }, cell(run))))))));
}

/** Images of every run at the same image count: saved sheets, or chosen seeds at the nearest checkpoint. */
function comparedImages(runs, { signal, state }) {
  const byTotal = () => state.get("axis") === "total";
  const offset = (run) => (byTotal() ? run.inherited_images : 0);
  const counts = () => [...new Set(runs.flatMap((run) => run.sheets.map((at) => at + offset(run))))].sort((a, b) => a - b);
  /** The largest image count that at least two runs have a sheet of and every run has reached. Without one, what every run has reached. */
  const common = () => {
    const reached = Math.min(...runs.filter((run) => run.sheets.length).map((run) => run.sheets.at(-1) + offset(run)));
    const numRuns = (at) => runs.filter((run) => run.sheets.includes(at - offset(run))).length, trained = counts().filter((at) => at > 0 && at <= reached);
    const most = Math.max(...trained.map(numRuns), 0);
    return most > 1 ? trained.findLast((at) => numRuns(at) === most) : Number.isFinite(reached) ? reached : 0;
  };
  const at = () => state.number("at", common());
  const isModelFile = (run) => run.state === "model_file"; // it has no sheets and no checkpoints
  const mode = () => state.get("show", runs.some(isModelFile) ? "seeds" : "sheets"), bySeeds = () => mode() === "seeds";
  const first = () => state.number("first", 0), count = () => state.number("count", 16);
  const classes = Math.max(0, ...runs.map((run) => run.classes ?? 0)), names = runs.find((run) => run.class_names?.length)?.class_names;
  const parameters = (run) => ({ seeds: `${first()}-${first() + count() - 1}`, truncation: state.get("truncation"), label: run.classes ? state.get("label") : null, checkpoint: isModelFile(run) ? null : nearest(run, trained(run)) });
  const trained = (run) => { // an untrained network says nothing, unless there is no other
    const all = run.checkpoints.map((each) => each.images_seen), later = all.filter((each) => each > 0);
    return later.length ? later : all;
  };
  const nearest = (run, list) => (list.length ? list[nearestIndex(list.map((each) => each + offset(run)), at())] : null);
  const columns = runs.map((run) => {
    const canvas = imageCanvas(...gridSize(run.layout), `Images of ${nameOf(run)}`), frame = h("div", { class: "image-frame" }, canvas), caption = h("p", { class: "count" });
    const overlay = loadingOverlay(frame);
    const draw = latestOnly(async () => {
      const shown = isModelFile(run) && bySeeds() ? run.images_seen : nearest(run, bySeeds() ? trained(run) : run.sheets);
      if (shown === null) return overlay.fail("There are no images yet.");
      overlay.start(bySeeds() ? "Generating …" : "Loading …");
      if (bySeeds()) paint(canvas, await fetchImage("/api/seeds.png", { run: run.id, ...parameters(run) }, signal));
      else paintSheetHalf(canvas, await fetchImage("/api/sample-sheet", { run: run.id, images_seen: shown }, signal), run.layout);
      const total = shown + offset(run), far = Math.abs(total - at()) > NEAR * Math.max(at(), 1);
      caption.textContent = `after ${formatInteger(total)} images${far && !isModelFile(run) ? `, the nearest ${bySeeds() ? "checkpoint" : "sheet"}` : ""}`;
      caption.classList.toggle("far", far);
      overlay.done();
    }, (error) => overlay.fail(error.message));
    return { draw, element: h("figure", { class: "run-column" }, h("h3", {}, swatch(run), h("a", { href: link(run.id, "live") }, nameOf(run))), caption, frame, reproducible(run)) };
  });
  function reproducible(run) {
    const panel = reproduce(run.id, () => ({ view: "seeds", ...parameters(run) }));
    panel.classList.add("only-seeds");
    return panel;
  }
  const redraw = (changes = {}) => (state.set(changes), columns.forEach((column) => column.draw()));
  const scrub = slider({ label: "Images seen", min: 0, max: 1, step: 1, value: 0, format: () => formatInteger(at()), onChange: (index) => redraw({ at: counts()[index] }) });
  const seed = integerField("First seed", first(), 0, 1e9, (value) => redraw({ first: value }));
  const step = (by) => {
    const value = Math.max(0, first() + by * count());
    seed.set(value);
    redraw({ first: value });
  };
  const seedControls = h("div", { class: "controls" },
    h("button", { type: "button", on: { click: () => step(-1) } }, "Previous seeds"), seed.element, h("button", { type: "button", on: { click: () => step(1) } }, "Next seeds"),
    selectField("Images", [[4, "4"], [9, "9"], [16, "16"], [36, "36"]], count(), (value) => redraw({ count: value })),
    classes ? selectField("Class", [["", "each seed's own"], ...Array.from({ length: classes }, (_, index) => [index, names?.[index] ?? String(index)])], state.get("label", ""), (value) => redraw({ label: value })) : null,
    slider({ label: "Truncation", min: 0, max: 1, step: 0.05, value: state.number("truncation", 1), onChange: (value) => redraw({ truncation: value === 1 ? null : value }) }).element);
  const hint = h("p", { class: "count" });
  const grid = h("div", { class: "run-columns" }, columns.map((column) => column.element));
  const update = () => {
    const list = counts();
    scrub.input.max = String(Math.max(0, list.length - 1));
    scrub.set(list.length ? nearestIndex(list, at()) : 0);
    seedControls.hidden = !bySeeds();
    grid.classList.toggle("seeds", bySeeds());
    hint.textContent = bySeeds() ? "Image 3 of every run has the same seed. Each run uses its checkpoint nearest to the selected number of images." : sheetHint(runs);
    redraw();
  };
  state.onAxis = () => (state.set({ at: null }), update());
  const element = h("section", { class: "block first" }, h("h2", {}, "Images"),
    h("div", { class: "controls" }, segmented("Images from", [["sheets", "Saved sheets"], ["seeds", "Chosen seeds"]], mode(), (value) => (state.set({ show: value }), update())), h("div", { class: "wide-slider" }, scrub.element), hint),
    seedControls, grid);
  update();
  return element;
}

/** Whether the sheets of the runs show the same latents: they depend on the seed and the latent size. */
function sheetHint(runs) {
  const differs = (name) => new Set(runs.map((run) => JSON.stringify(run.settings[name]))).size > 1;
  if (runs.length < 2) return "All sheets use the same latents.";
  if (differs("seed")) return "The runs have different seeds, so the sheets show different latents. Chosen seeds show the same ones.";
  if (["latent.size", "latent.distribution", "conditional"].some(differs)) return "The runs have different latents or classes, so the tiles do not correspond.";
  return "All sheets use the same latents: every tile has the same latent in every run.";
}

/** One chart per metric with a line per run. Scores of different kinds have charts of their own. */
function comparedCurves(runs, { signal, state }) {
  const charts = h("div", { class: "charts" }), status = h("span", { class: "count" }), drawn = new Map();
  let curves = runs.map(() => null);
  const axis = () => (state.get("axis", "images") in AXES ? state.get("axis", "images") : "images");
  const inSeconds = () => axis() === "seconds" || axis() === "cost";
  const position = (run, event) => (axis() === "seconds" ? event.elapsed_seconds : axis() === "cost" ? cost(run, event.elapsed_seconds) : event.images_seen + (axis() === "total" ? run.inherited_images : 0));
  let whole = null; // all charts have the same horizontal axis
  const zoomed = () => Boolean(state.get("from"));
  const range = () => (zoomed() ? [state.number("from", 0), state.number("to", Infinity)] : whole);
  const view = () => ({ smooth: state.number("smooth", 0), log: state.get("log") === "1", axis: inSeconds() ? "seconds" : "images", range: range() });
  const applyView = () => ((reset.hidden = !zoomed()), drawn.forEach((chart) => chart.setView(view())));
  const zoom = (to) => (state.set(to ? { from: Math.max(0, to[0]), to: to[1] } : { from: null, to: null }), applyView());
  const reset = h("button", { type: "button", class: "quiet", hidden: true, on: { click: () => zoom(null) } }, "Whole range");

  /** The readings of a metric of a run: [x, mean, low, high] in order. */
  function readings(index, metric) {
    const data = curves[index], series = data?.series[metric];
    if (!series) return [];
    return data.images_seen.map((images_seen, row) => [position(runs[index], { images_seen, elapsed_seconds: data.elapsed_seconds[row] }), series.mean[row], series.low[row], series.high[row]]).filter(([, mean]) => mean !== null);
  }
  const scoreReadings = (index) => (curves[index]?.scores ?? []).filter(({ images_seen }) => images_seen > 0 || curves[index].scores.length === 1).map((event) => [position(runs[index], event), event.score, event.score, event.score]);

  function show() {
    const wanted = [];
    const kinds = [...new Set(runs.map((run) => run.score_kind))];
    for (const kind of kinds) wanted.push([`Score: distance to ${kind} (lower is better)`, runs.map((run, index) => (run.score_kind === kind ? scoreReadings(index) : [])), true]);
    for (const [title, metric] of CHARTS) wanted.push([title, runs.map((_, index) => readings(index, metric)), false]);
    const elements = [], positions = wanted.flatMap(([, lists]) => lists.flatMap((list) => list.map(([at]) => at)));
    whole = positions.length ? positions.reduce(([low, high], at) => [Math.min(low, at), Math.max(high, at)], [Infinity, -Infinity]) : null;
    for (const [title, lists, isScore] of wanted) {
      const used = runs.map((run, index) => ({ run, list: lists[index] })).filter(({ list }) => list.length && (title !== AUGMENTATION || list.some(([, mean]) => mean !== 0)));
      if (!used.length) continue; // a metric that no run has, or augmentation that is off in all runs
      const lines = used.map(({ run }) => ({ name: run.id, label: nameOf(run), color: run.color, dash: run.dash }));
      const known = drawn.get(title) ?? lineChart({ title, lines, onZoom: zoom, onPoint: (x) => drawn.forEach((chart) => chart.point(x)), dots: isScore, robust: isScore });
      drawn.set(title, known);
      if (lines.some(({ name }) => !known.has(name))) known.setLines(lines);
      known.setData(merged(used.map(({ run, list }) => [run.id, list]), isScore));
      elements.push(known.element);
    }
    if (elements.length !== charts.children.length || elements.some((element, index) => charts.children[index] !== element)) charts.replaceChildren(...(elements.length ? elements : [notice("These runs have no metrics yet.")]));
    applyView();
  }

  const names = CHARTS.map(([, metric]) => metric).join(",");
  const read = latestOnly(async () => {
    status.textContent = curves.some(Boolean) ? "" : "Loading the curves …";
    curves = await Promise.all(runs.map((run, index) => json("/api/curves", { run: run.id, points: POINTS, series: names }, signal).catch((error) => (signal.aborted ? Promise.reject(error) : curves[index]))));
    status.textContent = "";
    show();
  }, (error) => (status.textContent = error.message));
  const set = (changes) => (state.set(changes), show());
  const axes = Object.entries(AXES).filter(([name]) => name !== "total" || runs.some((run) => run.inherited_images));
  const selectAxis = (value) => {
    state.set({ axis: value === "images" ? null : value, from: null, to: null });
    state.onAxis();
    show();
    announce(`Curves by ${AXES[value]}`);
  };
  document.addEventListener("theme", () => drawn.forEach((chart) => chart.draw()), { signal });
  const element = h("section", { class: "block" }, h("div", { class: "controls" }, h("h2", {}, "Curves"),
    segmented("Horizontal axis", axes.map(([value, words]) => [value, `by ${words}`.replace("by with", "with")]), axis(), selectAxis),
    segmented("Vertical axis", [["", "linear"], ["1", "log"]], state.get("log", ""), (value) => set({ log: value })),
    slider({ label: "Smoothing", min: 0, max: 0.99, step: 0.01, value: state.number("smooth", 0), format: (value) => value.toFixed(2), onChange: (value) => set({ smooth: value || null }) }).element,
    status, reset),
  h("p", { class: "count" }, "Cost is the training time multiplied by the number of processes. No price per hour is known."), charts);
  return { element, read };
}

/** The readings of several runs on one ascending x. Between two readings a line has the value in between, so that every run has a value at the pointer. */
export function merged(lines, isScore) {
  const x = [...new Set(lines.flatMap(([, list]) => list.map(([at]) => at)))].sort((a, b) => a - b);
  const series = {};
  let best = null;
  for (const [name, list] of lines) {
    const each = (series[name] = { mean: [], low: [], high: [], dots: [] });
    let next = 0;
    for (const at of x) {
      while (next < list.length && list[next][0] < at) next++;
      const exact = list[next]?.[0] === at, before = list[next - 1], after = list[next];
      const part = before && after && !exact ? (at - before[0]) / (after[0] - before[0]) : 0;
      const value = (column) => (exact ? after[column] : before && after ? before[column] + part * (after[column] - before[column]) : null);
      each.mean.push(value(1));
      each.low.push(value(2));
      each.high.push(value(3));
      each.dots.push(exact);
    }
    if (isScore) for (const [at, score] of list) if (!best || score < best.y) best = { line: name, x: at, y: score };
  }
  return { x, series, marks: [], best };
}

function differences(runs) {
  if (runs.length < 2) return "";
  const names = Object.keys(Object.assign({}, ...runs.map((run) => run.settings))).filter((name) => !IGNORED_SETTINGS.has(name) && new Set(runs.map((run) => JSON.stringify(run.settings[name]))).size > 1);
  const shown = (name, value) => (value === undefined ? "–" : value === null || value === "" ? "none" : name === "start_from" ? String(value).replace(/@sha256:([0-9a-f]{12})[0-9a-f]*$/, " ($1…)") : typeof value === "string" ? value : typeof value === "number" ? formatSetting(value) : JSON.stringify(value));
  return h("section", { class: "block" }, h("h2", {}, "Settings that differ"), names.length
    ? h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Settings that differ" }, h("table", { class: "plain" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "setting"), runs.map((run) => h("th", { scope: "col" }, swatch(run), nameOf(run))))),
      h("tbody", {}, names.map((name) => h("tr", {}, h("th", { scope: "row" }, name), runs.map((run) => h("td", {}, shown(name, run.settings[name]))))))))
    : notice("All runs have the same settings."));
}

const formatSetting = (value) => (Number.isInteger(value) && Math.abs(value) >= 10000 ? formatInteger(value) : String(value));

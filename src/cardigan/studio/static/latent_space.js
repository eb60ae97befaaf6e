// The latent space: interpolation, seeds, walks, arithmetic, checkpoints, nearest training images, inversion.
import { address, json, latestOnly, fetchImage, upload } from "./api.js";
import { selectField, integerField, h, helpNote, loadingOverlay, notice, formatNumber, replaceOptions, announce, segmented, formatCompact, slider, formatInteger } from "./dom.js";
import { imageCanvas, gridSize, layoutOf, paint, paintTile, tileOrigin, tileGrid } from "./images.js";
import { reproduce } from "./reproduce.js";

const MODES = { interpolation: ["Interpolate", interpolationMode], seeds: ["Seeds", seedsMode], walk: ["Walk", walkMode], arithmetic: ["Arithmetic", arithmeticMode], checkpoints: ["Checkpoints", checkpointsMode], nearest: ["Nearest", nearestMode], invert: ["Invert", inversionMode] };
const PAGE = 36;

/** Parse "3,7,z:AACAPw" to seeds and encoded latents. */
const parsePoints = (text) => (text ?? "").split(",").filter(Boolean).map((each) => (each.startsWith("z") ? each : Number(each))).filter((each) => typeof each === "string" || Number.isInteger(each));
const pointName = (point) => (typeof point === "string" ? "latent" : point);

export async function mount({ host, signal, state, id, run, events }) {
  const facts = { classes: run.classes, class_names: run.class_names, get checkpoints() { return run.checkpoints.map((each) => each.images_seen); } };
  const [width, height] = run.size.split("x").map(Number);
  const stage = h("div", { class: "stage" });
  let redraw = () => {};
  const context = {
    isLoaded: false,
    id, run, facts, state, signal, width, height,
    /** The sampling options of all modes. */
    samplingOptions: () => ({ label: facts.classes ? state.get("label") : null, truncation: state.get("truncation"), directions: state.get("directions"), checkpoint: state.get("checkpoint") }),
    fetchImage: (path, parameters) => fetchImage(path, { run: id, ...parameters }, signal),
  };
  context.switchMode = (mode, changes) => {
    state.set({ mode, ...changes });
    modes.replaceChildren(choose());
    enter();
    stage.querySelector(".interpolation-pad, button")?.focus();
  };
  const mode = () => (state.get("mode", "interpolation") in MODES ? state.get("mode", "interpolation") : "interpolation");
  const release = () => stage.querySelectorAll("img[src^='blob:']").forEach((image) => URL.revokeObjectURL(image.src));
  signal.addEventListener("abort", release);
  const enter = () => {
    release();
    stage.replaceChildren();
    redraw = MODES[mode()][1](stage, context);
    side.classList.toggle("idle", mode() === "invert");
    redraw();
  };
  const changed = (changes) => (state.set(changes), redraw());
  const choose = () => segmented("What to do", Object.entries(MODES).map(([name, [words]]) => [name, words]), mode(), (value) => (state.set({ mode: value === "interpolation" ? null : value }), enter()));
  const modes = h("div", { class: "controls modes" }, choose());
  const checkpointField = selectField("Generator after", generators(run), state.get("checkpoint", ""), (value) => changed({ checkpoint: value }));
  const side = h("aside", { class: "sampling-options", "aria-label": "Sampling options" }, samplingControls(context, changed, checkpointField, null));
  host.append(h("h2", { class: "visually-hidden" }, "Latent space"),
    modes,
    h("div", { class: "latent-space" }, side, stage));
  enter();
  let knownCheckpoints = facts.checkpoints.join();
  events.addEventListener("run", () => { // training has written a checkpoint, and may have removed an old one
    if (knownCheckpoints === facts.checkpoints.join()) return;
    knownCheckpoints = facts.checkpoints.join();
    replaceOptions(checkpointField, generators(run), state.get("checkpoint", ""));
    if (mode() === "checkpoints") redraw();
  }, { signal });
  json("/api/latent", { run: id }, signal).then(({ directions }) => !signal.aborted && side.replaceChildren(...samplingControls(context, changed, checkpointField, directions)), (error) => !signal.aborted && side.append(notice(error.message, "error")));
}

const generators = (run) => [["", "newest"], ...run.checkpoints.map((each) => [each.images_seen, `${formatInteger(each.images_seen)} images${each.best ? ", best" : ""}`])];

/** Class, truncation, checkpoint and directions: shared by all modes. `directions` is null until the server has computed them, which can take seconds. */
function samplingControls({ facts, state }, changed, checkpointField, directions) {
  const names = facts.class_names ?? [];
  const amounts = new Map((state.get("directions") ?? "").split(",").filter(Boolean).map((part) => part.split(":").map(Number)));
  const truncation = slider({ label: "Truncation", min: 0, max: 1, step: 0.02, value: state.number("truncation", 1), hint: "Lower: higher fidelity, less diversity", onChange: (value) => changed({ truncation: value === 1 ? null : value }) });
  const written = () => [...amounts].filter(([, amount]) => amount).map(([which, amount]) => `${which}:${amount}`).join(",");
  const sliders = (directions ?? new Array(8).fill({ explained_variance_ratio: null })).map((direction, which) => slider({
    label: [`${which + 1}`, h("small", {}, direction.explained_variance_ratio === null ? "" : ` ${(100 * direction.explained_variance_ratio).toFixed(1)} %`)], min: -4, max: 4, step: 0.1, value: amounts.get(which) ?? 0, format: (value) => (value > 0 ? "+" : "") + value.toFixed(1),
    onChange: (value) => (amounts.set(which, value), changed({ directions: written() })),
  }));
  const reset = h("button", { type: "button", class: "small", on: { click: () => {
    amounts.clear();
    sliders.forEach((each) => each.set(0));
    truncation.set(1);
    changed({ directions: null, truncation: null });
  } } }, "Reset");
  return [
    facts.classes ? selectField("Class", [["", "each seed's own"], ...Array.from({ length: facts.classes }, (_, index) => [index, names[index] ?? String(index)])], state.get("label", ""), (value) => changed({ label: value })) : null,
    checkpointField, truncation.element,
    h("fieldset", { class: "directions", disabled: !directions }, h("legend", {}, "Principal directions"), sliders.map((each) => each.element)), reset,
    h("p", { class: "hint" }, "Principal components of G's first features, with their explained variance. Move a slider to see its effect."),
  ].filter(Boolean);
}

/**
 * Loads images from `path` into a canvas with `draw(parameters)`, and shows errors. `frame()` returns the element that shows that they are loading.
 */
function imageLoader(context, canvas, path, frame = () => canvas?.closest(".image-frame")) {
  const errorBox = h("p", { class: "notice error", hidden: true });
  let overlay = null;
  const draw = latestOnly(async (parameters, then) => {
    overlay ??= frame() ? loadingOverlay(frame()) : null;
    overlay?.start(context.isLoaded ? "Generating …" : "Loading the model …");
    const bitmap = await context.fetchImage(path, parameters).finally(() => overlay?.done());
    context.isLoaded = true;
    errorBox.hidden = true;
    if (then) await then(bitmap);
    else paint(canvas, bitmap);
    bitmap.close();
  }, (error) => ((errorBox.textContent = error.message), (errorBox.hidden = false)));
  return { draw, errorBox };
}

function interpolationMode(stage, context) {
  const { state, id, width, height } = context;
  let corners = parsePoints(state.get("corners"));
  if (corners.length !== 4) corners = [0, 1, 2, 3];
  let [x, y] = [state.number("x", 0.5), state.number("y", 0.5)];
  const grid = () => state.number("grid", 1);
  const queryParameters = () => ({ corners: corners.join(","), x: x.toFixed(3), y: y.toFixed(3), grid: grid(), ...(grid() > 1 ? { extent: state.number("extent", 0.5) } : {}), ...context.samplingOptions() });
  const shape = () => gridSize(layoutOf(grid() ** 2, width, height));
  const canvas = imageCanvas(...shape(), "The image at the handle");
  const { draw, errorBox } = imageLoader(context, canvas, "/api/interpolation.png");
  const cornerCanvases = ["top left", "top right", "bottom left", "bottom right"].map((words) => imageCanvas(width, height, `The ${words} corner`));
  const cornerDraw = imageLoader(context, null, "/api/seeds.png", () => surface);
  const drawCorners = () => cornerDraw.draw({ seeds: corners.join(","), ...context.samplingOptions() }, (bitmap) => cornerCanvases.forEach((each, index) => paintTile(each, bitmap, layoutOf(4, width, height), index)));
  const handle = h("span", { class: "handle" });
  const surface = h("div", { class: "interpolation-pad", tabindex: 0, role: "slider", "aria-label": "Position between the four images", "aria-valuemin": 0, "aria-valuemax": 100 }, cornerCanvases.map((each, index) => h("span", { class: `corner c${index}` }, each)), handle);
  const put = () => {
    surface.style.setProperty("--x", x);
    surface.style.setProperty("--y", y);
    surface.setAttribute("aria-valuenow", Math.round(100 * x));
    surface.setAttribute("aria-valuetext", `${Math.round(100 * x)} % across, ${Math.round(100 * y)} % down`);
  };
  const move = (nextX, nextY) => {
    [x, y] = [nextX, nextY].map((value) => Math.min(1, Math.max(0, Math.round(value * 1000) / 1000)));
    state.set({ x, y });
    put();
    draw(queryParameters());
  };
  const at = (event) => {
    const box = surface.getBoundingClientRect();
    move((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  surface.addEventListener("pointerdown", (event) => (surface.setPointerCapture(event.pointerId), at(event)));
  surface.addEventListener("pointermove", (event) => surface.hasPointerCapture(event.pointerId) && at(event));
  surface.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.02;
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (!by) return;
    event.preventDefault();
    move(x + by[0], y + by[1]);
  });
  const inputs = corners.map((seed, index) => integerField(["Top left", "Top right", "Bottom left", "Bottom right"][index], seed, 0, 1e9, (value) => ((corners[index] = value), chosen())));
  const chosen = () => {
    state.set({ corners: corners.join(",") });
    drawCorners();
    draw(queryParameters());
  };
  const others = h("button", { type: "button", on: { click: () => {
    const above = Math.max(-1, ...corners.filter(Number.isInteger)) + 1;
    corners = corners.map((_, index) => above + index);
    inputs.forEach((input, index) => input.set(corners[index]));
    chosen();
  } } }, "Next four seeds");
  const extent = slider({ label: "Extent", min: 0.05, max: 1, step: 0.05, value: state.number("extent", 0.5), onChange: (value) => (state.set({ extent: value }), draw(queryParameters())) });
  extent.element.classList.toggle("off", grid() === 1);
  stage.append(h("div", { class: "columns interpolation-columns" }, h("div", { class: "interpolation-side" }, surface, h("div", { class: "corners" }, inputs.map((input) => input.element)), others),
    h("div", { class: "big" }, h("div", { class: "image-frame" }, canvas), h("div", { class: "controls" }, segmented("Images", [[1, "one"], [3, "3 × 3"], [4, "4 × 4"], [8, "8 × 8"]], grid(), (value) => {
      state.set({ grid: value === 1 ? null : value });
      extent.element.classList.toggle("off", value === 1);
      draw(queryParameters());
    }), extent.element), errorBox)),
  helpNote("About this view", "G maps a latent, a vector of random numbers, to an image. The corners are four latents, and the handle interpolates between them. Unless you select a class, each corner has its seed's class, and the classes are mixed with the latents. A good G gives realistic images everywhere in between. Abrupt jumps are a sign of memorization."),
  reproduce(id, () => ({ view: "interpolation", ...queryParameters() })));
  put();
  return () => (drawCorners(), draw(queryParameters()));
}

/** A page of selectable seeds. `onPick(seed)` is called on selection, `markText(seed)` returns the text to show on an image. */
function seedPicker(context, { onPick, markText }) {
  const { state, width, height } = context;
  const first = () => state.number("first", 0);
  const layout = { ...layoutOf(PAGE, width, height), columns: 9, rows: 4 };
  const serverLayout = layoutOf(PAGE, width, height);
  const grid = tileGrid(layout, { label: (index) => `Seed ${first() + index}`, onPick: (index) => (onPick(first() + index), grid.mark()), markText: (index) => markText(first() + index) });
  const { draw, errorBox } = imageLoader(context, grid.canvas, "/api/seeds.png");
  const queryParameters = () => ({ seeds: `${first()}-${first() + PAGE - 1}`, ...context.samplingOptions() });
  const redraw = () => draw(queryParameters(), (bitmap) => rearrangeGrid(grid.canvas, bitmap, serverLayout, layout));
  const seed = integerField("First seed", first(), 0, 1e9, (value) => turn(value));
  const turn = (value) => {
    state.set({ first: Math.max(0, value) || null });
    seed.set(first());
    grid.relabel();
    grid.mark();
    redraw();
  };
  const element = h("div", { class: "picker" }, h("div", { class: "controls" }, h("button", { type: "button", on: { click: () => turn(first() - PAGE) } }, "Previous"), seed.element, h("button", { type: "button", on: { click: () => turn(first() + PAGE) } }, "Next")), h("div", { class: "image-frame" }, grid.element), errorBox);
  return { element, redraw, queryParameters, mark: grid.mark };
}

/** Copy the images of a grid into a grid of another shape. */
async function rearrangeGrid(canvas, bitmap, from, to) {
  const [width, height] = gridSize(to), sheet = new OffscreenCanvas(width, height), ctx = sheet.getContext("2d");
  for (let index = 0; index < to.count; index++) ctx.drawImage(bitmap, ...tileOrigin(from, index), to.width, to.height, ...tileOrigin(to, index), to.width, to.height);
  paint(canvas, sheet);
}

/** The selected seeds as thumbnails. A click removes one. */
function selectionRow(context, { words, seeds, removed }) {
  const row = h("div", { class: "chosen" });
  const { draw, errorBox } = imageLoader(context, null, "/api/seeds.png");
  const redraw = () => {
    const list = seeds();
    if (!list.length) return row.replaceChildren(h("span", { class: "hint" }, words));
    const canvases = list.map(() => imageCanvas(context.width, context.height, ""));
    row.replaceChildren(...list.map((seed, index) => h("button", { type: "button", "aria-label": typeof seed === "string" ? "Remove the latent" : `Remove seed ${seed}`, title: "Remove", on: { click: () => removed(index) } }, canvases[index], h("span", {}, pointName(seed)))));
    draw({ seeds: list.join(","), ...context.samplingOptions() }, (bitmap) => canvases.forEach((canvas, index) => paintTile(canvas, bitmap, layoutOf(list.length, context.width, context.height), index)));
  };
  return { element: h("div", {}, row, errorBox), redraw };
}

function seedsMode(stage, context) {
  const { state, id, width, height } = context;
  const big = imageCanvas(width, height, "The selected image"), caption = h("b");
  const one = imageLoader(context, big, "/api/seeds.png");
  const seed = () => state.number("seed", 0);
  const show = () => {
    caption.textContent = `Seed ${seed()}`;
    one.draw({ seeds: seed(), ...context.samplingOptions() });
  };
  const go = (value) => (state.set({ seed: Math.max(0, value) }), grid.mark(), show(), announce(`Seed ${seed()}`));
  const grid = seedPicker(context, { onPick: go, markText: (each) => (each === seed() ? "●" : "") });
  stage.append(h("div", { class: "columns" }, grid.element, h("figure", { class: "single" }, h("figcaption", {}, caption), h("div", { class: "image-frame" }, big), h("div", { class: "row" }, h("button", { type: "button", on: { click: () => go(seed() - 1) } }, "Previous seed"), h("button", { type: "button", on: { click: () => go(seed() + 1) } }, "Next seed")), one.errorBox)),
    helpNote("About this view", "A seed determines the latent of an image, so the same seed gives the same image on every machine. Select one to enlarge it."), reproduce(id, () => ({ view: "seeds", ...grid.queryParameters() })));
  return () => (grid.redraw(), show());
}

function walkMode(stage, context) {
  const { state, id, width, height } = context;
  let stops = parsePoints(state.get("stops"));
  if (!stops.length) stops = [0, 1, 2];
  const animation = h("img", { class: "animation", alt: "A walk through the selected latents", width, height });
  animation.hidden = true;
  animation.style.aspectRatio = `${width} / ${height}`;
  const errorBox = h("p", { class: "notice error", hidden: true }), links = h("span", { class: "row" }), frame = h("div", { class: "image-frame square" }, animation), overlay = loadingOverlay(frame);
  const queryParameters = () => ({ seeds: stops.join(","), frames: state.number("frames", 60), fps: state.number("fps", 24), path: state.get("path", "auto"), loop: state.get("loop", "1") === "1" ? 1 : 0, ...context.samplingOptions() });
  const play = latestOnly(async () => {
    if (stops.length < 2) return;
    const parameters = { run: id, ...queryParameters() };
    links.replaceChildren(...context.run.animation_formats.map((format) => h("a", { class: "button small", href: address("/api/walk", { ...parameters, format }), download: `walk.${format}` }, format.toUpperCase())));
    overlay.start("Generating the walk …");
    const response = await fetch(address("/api/walk", { ...parameters, format: "webp" }), { signal: context.signal }).finally(overlay.done);
    if (!response.ok) throw Object.assign(new Error((await response.json()).error), { status: response.status });
    errorBox.hidden = true;
    if (animation.src) URL.revokeObjectURL(animation.src);
    animation.src = URL.createObjectURL(await response.blob());
    animation.hidden = false;
  }, (error) => ((errorBox.textContent = error.message), (errorBox.hidden = false)));
  const changed = () => (state.set({ stops: stops.join(",") }), grid.mark(), list.redraw(), play());
  const grid = seedPicker(context, { onPick: (seed) => (stops.length < 24 && stops.push(seed), changed()), markText: (seed) => (stops.includes(seed) ? String(stops.indexOf(seed) + 1) : "") });
  const list = selectionRow(context, { words: "Select images below: the walk visits them in this order.", seeds: () => stops, removed: (index) => (stops.splice(index, 1), changed()) });
  const set = (changes) => (state.set(changes), play());
  stage.append(h("div", { class: "columns" }, h("div", {}, h("h3", {}, "Stops"), list.element, grid.element),
    h("figure", { class: "single" }, h("figcaption", {}, h("b", {}, "Walk")), frame, errorBox, h("div", { class: "controls tight" },
      selectField("Frames", [[24, "24"], [60, "60"], [120, "120"], [240, "240"]], queryParameters().frames, (value) => set({ frames: value })), selectField("Frames per second", [[12, "12"], [24, "24"], [30, "30"], [60, "60"]], queryParameters().fps, (value) => set({ fps: value })),
      selectField("Path", [["auto", "auto"], ["spherical", "spherical"], ["linear", "linear"]], queryParameters().path, (value) => set({ path: value })),
      segmented("At the end", [["1", "loop"], ["0", "stop"]], String(queryParameters().loop), (value) => set({ loop: value }))), h("div", { class: "row" }, h("span", { class: "label" }, "Save"), links))),
  helpNote("About this view", "A walk interpolates between the latents of its stops. Unless you select a class, each stop has its seed's class, and the classes are mixed in between. auto takes arcs between normal latents and lines between uniform ones."),
  reproduce(id, () => ({ view: "walk", ...queryParameters() })));
  return () => (grid.redraw(), list.redraw(), play());
}

function arithmeticMode(stage, context) {
  const { state, id, width, height } = context;
  const parts = [["add", "Add", "+"], ["subtract", "Subtract", "−"], ["add2", "Add also", "+"]];
  const groups = Object.fromEntries(parts.map(([name], index) => [name, state.get(name) === undefined && state.get("subtract") === undefined && index < 3 ? [[1, 2, 3], [7, 8, 9], [4, 5, 6]][index] : parsePoints(state.get(name))]));
  let into = "add";
  const canvas = imageCanvas(width, height, "The result of the arithmetic");
  const queryParameters = () => ({ add: [groups.add, groups.add2].filter((group) => group.length).map((group) => group.join(",")).join(";"), subtract: groups.subtract.join(","), ...context.samplingOptions() });
  const { draw, errorBox } = imageLoader(context, canvas, "/api/arithmetic.png");
  const redraw = () => groups.add.length + groups.add2.length && draw(queryParameters());
  const changed = () => (state.set({ add: groups.add.join(",") || "-", subtract: groups.subtract.join(",") || "-", add2: groups.add2.join(",") || "-" }), selectionRows.forEach((each) => each.redraw()), grid.mark(), redraw());
  const selectionRows = parts.map(([name]) => selectionRow(context, { words: "Choose this group below, then select images.", seeds: () => groups[name], removed: (index) => (groups[name].splice(index, 1), changed()) }));
  const grid = seedPicker(context, {
    onPick: (seed) => {
      const at = groups[into].indexOf(seed);
      if (at >= 0) groups[into].splice(at, 1);
      else groups[into].push(seed);
      changed();
    },
    markText: (seed) => parts.filter(([name]) => groups[name].includes(seed)).map(([, , sign]) => sign).join(""),
  });
  stage.append(h("div", { class: "sum" }, parts.map(([name, words, sign], index) => h("div", { class: "term" }, h("h3", {}, h("span", { class: "sign", "aria-hidden": "true" }, sign), words), selectionRows[index].element))),
    h("div", { class: "columns halves" }, h("div", {}, segmented("Add selected images to", parts.map(([name, words]) => [name, words]), into, (value) => (into = value)), grid.element), h("figure", { class: "single" }, h("figcaption", {}, h("b", {}, "Means and result")), h("div", { class: "image-frame" }, canvas), errorBox)),
    helpNote("About this view", "Takes the mean latent of each group and adds or subtracts the means. Unless you select a class, the seeds' classes are added and subtracted with their latents. The DCGAN paper gets smiling men from smiling women, minus neutral women, plus neutral men. Groups of three or more images work better than single images."),
    reproduce(id, () => ({ view: "arithmetic", ...queryParameters() })));
  return () => (grid.redraw(), selectionRows.forEach((each) => each.redraw()), redraw());
}

function checkpointsMode(stage, context) {
  const { state, id, width, height, facts } = context;
  const count = 8, first = () => state.number("first", 0);
  const checkpointRows = h("div", { class: "checkpoint-rows" }), rowByCheckpoint = new Map();
  const checkpointRow = (seen) => {
    const canvas = imageCanvas(...gridSize({ columns: count, rows: 1, width, height, gap: 2 }), `Seeds ${first()} to ${first() + count - 1} after ${formatInteger(seen)} images`);
    return { canvas, element: h("figure", {}, h("figcaption", {}, h("b", {}, formatCompact(seen)), " images"), h("div", { class: "image-frame" }, canvas)) };
  };
  const queryParameters = () => ({ seeds: `${first()}-${first() + count - 1}`, ...context.samplingOptions(), checkpoint: null });
  const { draw, errorBox } = imageLoader(context, null, "/api/checkpoints.png", () => checkpointRows.querySelector(".image-frame"));
  const redraw = () => {
    const rows = facts.checkpoints;
    if (!rows.length) return checkpointRows.replaceChildren(notice("This run has no checkpoint yet."));
    for (const seen of rows) if (!rowByCheckpoint.has(seen)) rowByCheckpoint.set(seen, checkpointRow(seen));
    checkpointRows.replaceChildren(...rows.map((seen) => rowByCheckpoint.get(seen).element));
    draw({ ...queryParameters(), checkpoints: rows.join(",") }, (bitmap) => rows.forEach((seen, index) => paint(rowByCheckpoint.get(seen).canvas, bitmap, 0, index * (height + 2), Math.min(bitmap.width, count * (width + 2) - 2), height)));
  };
  const seed = integerField("First seed", first(), 0, 1e9, (value) => turn(value));
  const turn = (value) => (state.set({ first: Math.max(0, value) || null }), seed.set(first()), redraw());
  stage.append(h("div", { class: "controls" }, h("button", { type: "button", on: { click: () => turn(first() - count) } }, "Previous"), seed.element, h("button", { type: "button", on: { click: () => turn(first() + count) } }, "Next")), errorBox,
    checkpointRows,
    helpNote("About this view", "The same latents at every kept checkpoint. Features that stay the same were learned early, and features that change are still being learned."), reproduce(id, () => ({ view: "checkpoints", ...queryParameters() })));
  return redraw;
}

function nearestMode(stage, context) {
  const { state, id, width, height } = context;
  const seed = () => state.number("seed", 0);
  const names = ["generated", "nearest", "2nd", "3rd", "4th", "5th"];
  const canvases = names.map((name) => imageCanvas(width, height, `${name}`));
  const { draw, errorBox } = imageLoader(context, null, "/api/nearest.png", () => canvases[0].closest(".image-frame"));
  const redraw = () => draw({ seed: seed(), ...context.samplingOptions() }, (bitmap) => canvases.forEach((canvas, index) => paintTile(canvas, bitmap, layoutOf(names.length, width, height), index)));
  const input = integerField("Seed", seed(), 0, 1e9, (value) => go(value));
  const go = (value) => (state.set({ seed: Math.max(0, value) }), input.set(seed()), redraw());
  stage.append(h("div", { class: "controls" }, h("button", { type: "button", on: { click: () => go(seed() - 1) } }, "Previous seed"), input.element, h("button", { type: "button", on: { click: () => go(seed() + 1) } }, "Next seed")), errorBox,
    h("div", { class: "neighbors" }, names.map((name, index) => h("figure", { class: index ? "" : "first" }, h("figcaption", {}, name), h("div", { class: "image-frame" }, canvases[index])))),
    helpNote("About this view", "A generated image and its nearest training images. If the nearest one is nearly identical, G has memorized it. The distance is Euclidean in pixels, so it misses shifted copies."), reproduce(id, () => ({ view: "nearest", seed: seed(), ...context.samplingOptions() })));
  return redraw;
}

function inversionMode(stage, context) {
  const { id, width, height, signal, state } = context;
  const target = h("img", { class: "image", alt: "The uploaded image", hidden: true }), found = h("img", { class: "image", alt: "The nearest image of G", hidden: true });
  for (const image of [target, found]) image.style.aspectRatio = `${width} / ${height}`;
  const words = h("p", { class: "readout", role: "status" }), numbers = h("textarea", { readonly: true, rows: 4, "aria-label": "The latent", hidden: true });
  let name = "image.png", point = "";
  const followUps = h("div", { class: "row", hidden: true },
    h("button", { type: "button", on: { click: () => context.switchMode(null, { corners: [point, 0, 1, 2].join(","), x: 0, y: 0, label: null }) } }, "Interpolate from it"),
    h("button", { type: "button", on: { click: () => context.switchMode("walk", { stops: [point, 0, 1].join(","), label: null }) } }, "Walk from it"));
  const input = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", class: "visually-hidden", id: "upload" });
  const drop = h("label", { class: "drop", for: "upload" }, h("b", {}, "Choose an image"), h("span", {}, "or drop one here: PNG, JPEG or WebP, at most 8 MB"));
  async function handleFile(file) {
    if (!file) return;
    name = file.name;
    if (target.src) URL.revokeObjectURL(target.src);
    target.src = URL.createObjectURL(file);
    target.hidden = false;
    found.hidden = numbers.hidden = followUps.hidden = true;
    words.textContent = "Searching: this takes a few seconds …";
    drop.setAttribute("aria-busy", "true");
    try {
      const result = await upload("/api/invert", { run: id, label: state.get("label") }, file, signal);
      found.src = result.image;
      found.hidden = numbers.hidden = followUps.hidden = false;
      point = result.latent;
      numbers.value = JSON.stringify(result.z.map((value) => Number(value.toFixed(4))));
      words.textContent = `RMSE: ${formatNumber(result.rmse)} of 255 gray levels${result.label === null || result.label === undefined ? "" : `, as class ${context.facts.class_names?.[result.label] ?? result.label}`}.`;
    } catch (error) {
      if (error.name !== "AbortError") words.textContent = error.message;
    }
    drop.removeAttribute("aria-busy");
  }
  input.addEventListener("change", () => handleFile(input.files[0]));
  for (const kind of ["dragover", "dragleave", "drop"]) drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") handleFile(event.dataTransfer.files[0]);
  });
  const figure = (image, title) => h("figure", {}, h("figcaption", {}, title), h("div", { class: "image-frame" }, image));
  stage.append(input, drop, words, h("div", { class: "inversion-pair" }, figure(target, "Uploaded"), figure(found, "Nearest image of G")), followUps, numbers,
    helpNote("About this view", "GAN inversion: an optimizer searches the latent whose image is nearest to yours. Features that the result lacks are outside of what G has learned. An image unlike the training images gives a typical image of G."),
    reproduce(id, () => ({ view: "invert", label: state.get("label"), name })));
  return () => {};
}

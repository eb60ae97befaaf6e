// The latent space: what lies between, beside and behind the pictures that G can draw.
import { address, json, latestOnly, fetchImage, upload } from "./api.js";
import { selectField, integerField, h, helpNote, notice, formatNumber, replaceOptions, announce, segmented, formatCompact, slider, formatInteger } from "./dom.js";
import { imageCanvas, gridSize, layoutOf, paint, paintTile, tileOrigin, tileGrid } from "./images.js";
import { reproduce } from "./reproduce.js";

const MODES = { interpolation: ["Drag", interpolationMode], seeds: ["Seeds", seedsMode], walk: ["Walk", walkMode], arithmetic: ["Arithmetic", arithmeticMode], checkpoints: ["Over time", checkpointsMode], nearest: ["Nearest", nearestMode], invert: ["Find a picture", inversionMode] };
const PAGE = 36;

/** "3,7,z:AACAPw" as seeds and latents that were found. */
const parsePoints = (text) => (text ?? "").split(",").filter(Boolean).map((each) => (each.startsWith("z") ? each : Number(each))).filter((each) => typeof each === "string" || Number.isInteger(each));
const pointName = (point) => (typeof point === "string" ? "found" : point);

export async function mount({ host, signal, state, id, run, events }) {
  const facts = { classes: run.classes, class_names: run.class_names, get checkpoints() { return run.checkpoints.map((each) => each.images_seen); } };
  const [width, height] = run.size.split("x").map(Number);
  const stage = h("div", { class: "stage" });
  let redraw = () => {};
  const context = {
    id, run, facts, state, signal, width, height,
    /** What every picture of the room is drawn with. */
    samplingOptions: () => ({ label: facts.classes ? state.get("label") : null, truncation: state.get("truncation"), directions: state.get("directions"), checkpoint: state.get("checkpoint") }),
    fetchImage: (path, parameters) => fetchImage(path, { run: id, ...parameters }, signal),
  };
  context.switchMode = (mode, changes) => {
    state.set({ mode, ...changes });
    modes.replaceChildren(choose());
    enter();
    stage.querySelector(".pad, button")?.focus();
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
  const side = h("aside", { class: "sampling-options", "aria-label": "How pictures are drawn" }, samplingControls(context, changed, checkpointField, null));
  host.append(h("h2", { class: "visually-hidden" }, "Latent space"),
    modes,
    h("div", { class: "latent-space" }, side, stage));
  enter();
  let knownCheckpoints = facts.checkpoints.join();
  events.addEventListener("run", () => { // training has written a checkpoint, and removed an old one
    if (knownCheckpoints === facts.checkpoints.join()) return;
    knownCheckpoints = facts.checkpoints.join();
    replaceOptions(checkpointField, generators(run), state.get("checkpoint", ""));
    if (mode() === "checkpoints") redraw();
  }, { signal });
  json("/api/latent", { run: id }, signal).then(({ directions }) => !signal.aborted && side.replaceChildren(...samplingControls(context, changed, checkpointField, directions)), (error) => !signal.aborted && side.append(notice(error.message, "error")));
}

const generators = (run) => [["", "newest"], ...run.checkpoints.map((each) => [each.images_seen, `${formatInteger(each.images_seen)} images${each.best ? ", best" : ""}`])];

/** Class, truncation, moment (`checkpointField`) and directions: shared by all modes. Directions take the server seconds the first time; null until they are known. */
function samplingControls({ facts, state }, changed, checkpointField, directions) {
  const names = facts.class_names ?? [];
  const amounts = new Map((state.get("directions") ?? "").split(",").filter(Boolean).map((part) => part.split(":").map(Number)));
  const truncation = slider({ label: "Truncation", min: 0, max: 1, step: 0.02, value: state.number("truncation", 1), hint: "Less: more typical, less varied", onChange: (value) => changed({ truncation: value === 1 ? null : value }) });
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
  } } }, "As trained");
  return [
    facts.classes ? selectField("Class", [["", "each seed's own"], ...Array.from({ length: facts.classes }, (_, index) => [index, names[index] ?? String(index)])], state.get("label", ""), (value) => changed({ label: value })) : null,
    checkpointField, truncation.element,
    h("fieldset", { class: "directions", disabled: !directions }, h("legend", {}, "Principal directions"), sliders.map((each) => each.element)), reset,
    h("p", { class: "hint" }, "The ways in which G's first features vary most, and how much of their variance each accounts for. What one means, you have to see."),
  ].filter(Boolean);
}

/** A canvas of the room's pictures that is redrawn by `draw(parameters)`, and says where it cannot. */
function imageLoader(context, canvas, path) {
  const trouble = h("p", { class: "notice error", hidden: true });
  const draw = latestOnly(async (parameters, then) => {
    const bitmap = await context.fetchImage(path, parameters);
    trouble.hidden = true;
    if (then) await then(bitmap);
    else paint(canvas, bitmap);
    bitmap.close();
  }, (error) => ((trouble.textContent = error.message), (trouble.hidden = false)));
  return { draw, trouble };
}

function interpolationMode(stage, context) {
  const { state, id, width, height } = context;
  let corners = parsePoints(state.get("corners"));
  if (corners.length !== 4) corners = [0, 1, 2, 3];
  let [x, y] = [state.number("x", 0.5), state.number("y", 0.5)];
  const grid = () => state.number("grid", 1);
  const queryParameters = () => ({ corners: corners.join(","), x: x.toFixed(3), y: y.toFixed(3), grid: grid(), ...(grid() > 1 ? { extent: state.number("extent", 0.5) } : {}), ...context.samplingOptions() });
  const shape = () => gridSize(layoutOf(grid() ** 2, width, height));
  const canvas = imageCanvas(...shape(), "The picture at the handle");
  const { draw, trouble } = imageLoader(context, canvas, "/api/interpolation.png");
  const cornerCanvases = ["top left", "top right", "bottom left", "bottom right"].map((words) => imageCanvas(width, height, `The ${words} corner`));
  const cornerDraw = imageLoader(context, null, "/api/seeds.png");
  const drawCorners = () => cornerDraw.draw({ seeds: corners.join(","), ...context.samplingOptions() }, (bitmap) => cornerCanvases.forEach((each, index) => paintTile(each, bitmap, layoutOf(4, width, height), index)));
  const handle = h("span", { class: "handle" });
  const surface = h("div", { class: "pad", tabindex: 0, role: "slider", "aria-label": "Place between the four pictures", "aria-valuemin": 0, "aria-valuemax": 100 }, cornerCanvases.map((each, index) => h("span", { class: `corner c${index}` }, each)), handle);
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
  } } }, "Four others");
  const extent = slider({ label: "How far apart", min: 0.05, max: 1, step: 0.05, value: state.number("extent", 0.5), onChange: (value) => (state.set({ extent: value }), draw(queryParameters())) });
  extent.element.classList.toggle("off", grid() === 1);
  stage.append(h("div", { class: "columns pad-columns" }, h("div", { class: "pad-side" }, surface, h("div", { class: "corners" }, inputs.map((input) => input.element)), others),
    h("div", { class: "big" }, h("div", { class: "image-frame" }, canvas), h("div", { class: "controls" }, segmented("Pictures", [[1, "one"], [3, "3 × 3"], [4, "4 × 4"], [8, "8 × 8"]], grid(), (value) => {
      state.set({ grid: value === 1 ? null : value });
      extent.element.classList.toggle("off", value === 1);
      draw(queryParameters());
    }), extent.element), trouble)),
  helpNote("What this is", "Every picture begins as a list of random numbers. The four corners are four such lists; the handle mixes them. Nothing in between was ever a training picture: a G that has understood draws a believable picture everywhere, and one that has learned by heart jumps from one to the next."),
  reproduce(id, () => ({ view: "interpolation", ...queryParameters() })));
  put();
  return () => (drawCorners(), draw(queryParameters()));
}

/** A page of seeds that can be picked; `onPick` is told the seed, `markText` says what to show on it. */
function seedPicker(context, { onPick, markText }) {
  const { state, width, height } = context;
  const first = () => state.number("first", 0);
  const layout = { ...layoutOf(PAGE, width, height), columns: 9, rows: 4 };
  const drawnAs = layoutOf(PAGE, width, height);
  const grid = tileGrid(layout, { label: (index) => `Seed ${first() + index}`, onPick: (index) => (onPick(first() + index), grid.mark()), markText: (index) => markText(first() + index) });
  const { draw, trouble } = imageLoader(context, grid.canvas, "/api/seeds.png");
  const queryParameters = () => ({ seeds: `${first()}-${first() + PAGE - 1}`, ...context.samplingOptions() });
  const redraw = () => draw(queryParameters(), (bitmap) => rearrangeGrid(grid.canvas, bitmap, drawnAs, layout));
  const seed = integerField("First seed", first(), 0, 1e9, (value) => turn(value));
  const turn = (value) => {
    state.set({ first: Math.max(0, value) || null });
    seed.set(first());
    grid.relabel();
    grid.mark();
    redraw();
  };
  const element = h("div", { class: "picker" }, h("div", { class: "controls" }, h("button", { type: "button", on: { click: () => turn(first() - PAGE) } }, "Previous"), seed.element, h("button", { type: "button", on: { click: () => turn(first() + PAGE) } }, "Next")), h("div", { class: "image-frame" }, grid.element), trouble);
  return { element, redraw, queryParameters, mark: grid.mark };
}

/** Copy a grid's pictures into another shape of grid. */
async function rearrangeGrid(canvas, bitmap, from, to) {
  const [width, height] = gridSize(to), sheet = new OffscreenCanvas(width, height), ctx = sheet.getContext("2d");
  for (let index = 0; index < to.count; index++) ctx.drawImage(bitmap, ...tileOrigin(from, index), to.width, to.height, ...tileOrigin(to, index), to.width, to.height);
  paint(canvas, sheet);
}

/** The chosen seeds, drawn small; a click takes one out. */
function selectionRow(context, { words, seeds, removed }) {
  const row = h("div", { class: "chosen" });
  const { draw, trouble } = imageLoader(context, null, "/api/seeds.png");
  const redraw = () => {
    const list = seeds();
    if (!list.length) return row.replaceChildren(h("span", { class: "hint" }, words));
    const canvases = list.map(() => imageCanvas(context.width, context.height, ""));
    row.replaceChildren(...list.map((seed, index) => h("button", { type: "button", "aria-label": typeof seed === "string" ? "Take the found picture out" : `Take seed ${seed} out`, title: "Take it out", on: { click: () => removed(index) } }, canvases[index], h("span", {}, pointName(seed)))));
    draw({ seeds: list.join(","), ...context.samplingOptions() }, (bitmap) => canvases.forEach((canvas, index) => paintTile(canvas, bitmap, layoutOf(list.length, context.width, context.height), index)));
  };
  return { element: h("div", {}, row, trouble), redraw };
}

function seedsMode(stage, context) {
  const { state, id, width, height } = context;
  const big = imageCanvas(width, height, "The chosen picture"), caption = h("b");
  const one = imageLoader(context, big, "/api/seeds.png");
  const seed = () => state.number("seed", 0);
  const show = () => {
    caption.textContent = `Seed ${seed()}`;
    one.draw({ seeds: seed(), ...context.samplingOptions() });
  };
  const go = (value) => (state.set({ seed: Math.max(0, value) }), grid.mark(), show(), announce(`Seed ${seed()}`));
  const grid = seedPicker(context, { onPick: go, markText: (each) => (each === seed() ? "●" : "") });
  stage.append(h("div", { class: "columns" }, grid.element, h("figure", { class: "single" }, h("figcaption", {}, caption), h("div", { class: "image-frame" }, big), h("div", { class: "row" }, h("button", { type: "button", on: { click: () => go(seed() - 1) } }, "Previous seed"), h("button", { type: "button", on: { click: () => go(seed() + 1) } }, "Next seed")), one.trouble)),
    helpNote("What this is", "A seed is a number from which a picture's random numbers are made: the same seed gives the same picture on every machine. Choose one to see it large."), reproduce(id, () => ({ view: "seeds", ...grid.queryParameters() })));
  return () => (grid.redraw(), show());
}

function walkMode(stage, context) {
  const { state, id, width, height } = context;
  let stops = parsePoints(state.get("stops"));
  if (!stops.length) stops = [0, 1, 2];
  const film = h("img", { class: "film", alt: "A walk between the chosen pictures", width, height });
  film.hidden = true;
  film.style.aspectRatio = `${width} / ${height}`;
  const trouble = h("p", { class: "notice error", hidden: true }), links = h("span", { class: "row" });
  const queryParameters = () => ({ seeds: stops.join(","), frames: state.number("frames", 60), fps: state.number("fps", 24), path: state.get("path", "auto"), loop: state.get("loop", "1") === "1" ? 1 : 0, ...context.samplingOptions() });
  const play = latestOnly(async () => {
    if (stops.length < 2) return;
    const parameters = { run: id, ...queryParameters() };
    links.replaceChildren(...context.run.animation_formats.map((format) => h("a", { class: "button small", href: address("/api/walk", { ...parameters, format }), download: `walk.${format}` }, format.toUpperCase())));
    const response = await fetch(address("/api/walk", { ...parameters, format: "webp" }), { signal: context.signal });
    if (!response.ok) throw Object.assign(new Error((await response.json()).error), { status: response.status });
    trouble.hidden = true;
    if (film.src) URL.revokeObjectURL(film.src);
    film.src = URL.createObjectURL(await response.blob());
    film.hidden = false;
  }, (error) => ((trouble.textContent = error.message), (trouble.hidden = false)));
  const changed = () => (state.set({ stops: stops.join(",") }), grid.mark(), list.redraw(), play());
  const grid = seedPicker(context, { onPick: (seed) => (stops.length < 24 && stops.push(seed), changed()), markText: (seed) => (stops.includes(seed) ? String(stops.indexOf(seed) + 1) : "") });
  const list = selectionRow(context, { words: "Choose pictures below: the walk passes them in this order.", seeds: () => stops, removed: (index) => (stops.splice(index, 1), changed()) });
  const set = (changes) => (state.set(changes), play());
  stage.append(h("div", { class: "columns" }, h("div", {}, h("h3", {}, "Stops"), list.element, grid.element),
    h("figure", { class: "single" }, h("figcaption", {}, h("b", {}, "The walk")), h("div", { class: "image-frame square" }, film), trouble, h("div", { class: "controls tight" },
      selectField("Frames", [[24, "24"], [60, "60"], [120, "120"], [240, "240"]], queryParameters().frames, (value) => set({ frames: value })), selectField("A second", [[12, "12"], [24, "24"], [30, "30"], [60, "60"]], queryParameters().fps, (value) => set({ fps: value })),
      selectField("Path", [["auto", "as fits the latents"], ["spherical", "along the sphere"], ["linear", "straight"]], queryParameters().path, (value) => set({ path: value })),
      segmented("At the end", [["1", "loop"], ["0", "stop"]], String(queryParameters().loop), (value) => set({ loop: value }))), h("div", { class: "row" }, h("span", { class: "label" }, "Save"), links))),
  reproduce(id, () => ({ view: "walk", ...queryParameters() })));
  return () => (grid.redraw(), list.redraw(), play());
}

function arithmeticMode(stage, context) {
  const { state, id, width, height } = context;
  const parts = [["add", "Add", "+"], ["subtract", "Take away", "−"], ["add2", "Add as well", "+"]];
  const groups = Object.fromEntries(parts.map(([name], index) => [name, state.get(name) === undefined && state.get("subtract") === undefined && index < 3 ? [[1, 2, 3], [7, 8, 9], [4, 5, 6]][index] : parsePoints(state.get(name))]));
  let into = "add";
  const canvas = imageCanvas(width, height, "The result of the arithmetic");
  const queryParameters = () => ({ add: [groups.add, groups.add2].filter((group) => group.length).map((group) => group.join(",")).join(";"), subtract: groups.subtract.join(","), ...context.samplingOptions() });
  const { draw, trouble } = imageLoader(context, canvas, "/api/arithmetic.png");
  const redraw = () => groups.add.length + groups.add2.length && draw(queryParameters());
  const changed = () => (state.set({ add: groups.add.join(",") || "-", subtract: groups.subtract.join(",") || "-", add2: groups.add2.join(",") || "-" }), trays.forEach((each) => each.redraw()), grid.mark(), redraw());
  const trays = parts.map(([name]) => selectionRow(context, { words: "Choose this group, then pictures below.", seeds: () => groups[name], removed: (index) => (groups[name].splice(index, 1), changed()) }));
  const grid = seedPicker(context, {
    onPick: (seed) => {
      const at = groups[into].indexOf(seed);
      if (at >= 0) groups[into].splice(at, 1);
      else groups[into].push(seed);
      changed();
    },
    markText: (seed) => parts.filter(([name]) => groups[name].includes(seed)).map(([, , sign]) => sign).join(""),
  });
  stage.append(h("div", { class: "sum" }, parts.map(([name, words, sign], index) => h("div", { class: "term" }, h("h3", {}, h("span", { class: "sign", "aria-hidden": "true" }, sign), words), trays[index].element))),
    h("div", { class: "columns halves" }, h("div", {}, segmented("Pictures go into", parts.map(([name, words]) => [name, words]), into, (value) => (into = value)), grid.element), h("figure", { class: "single" }, h("figcaption", {}, h("b", {}, "The averages, and the result")), h("div", { class: "image-frame" }, canvas), trouble)),
    helpNote("What this is", "Average the random numbers of a few pictures that share something, take those of another group away, add a third: the result often shares the difference. The DCGAN paper made a smiling man out of smiling women, neutral women and neutral men this way. Three or more pictures a group work better than one."),
    reproduce(id, () => ({ view: "arithmetic", ...queryParameters() })));
  return () => (grid.redraw(), trays.forEach((each) => each.redraw()), redraw());
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
  const { draw, trouble } = imageLoader(context, null, "/api/checkpoints.png");
  const redraw = () => {
    const rows = facts.checkpoints;
    if (!rows.length) return checkpointRows.replaceChildren(notice("This run keeps no checkpoint yet."));
    for (const seen of rows) if (!rowByCheckpoint.has(seen)) rowByCheckpoint.set(seen, checkpointRow(seen));
    checkpointRows.replaceChildren(...rows.map((seen) => rowByCheckpoint.get(seen).element));
    draw({ ...queryParameters(), checkpoints: rows.join(",") }, (bitmap) => rows.forEach((seen, index) => paint(rowByCheckpoint.get(seen).canvas, bitmap, 0, index * (height + 2), Math.min(bitmap.width, count * (width + 2) - 2), height)));
  };
  const seed = integerField("First seed", first(), 0, 1e9, (value) => turn(value));
  const turn = (value) => (state.set({ first: Math.max(0, value) || null }), seed.set(first()), redraw());
  stage.append(h("div", { class: "controls" }, h("button", { type: "button", on: { click: () => turn(first() - count) } }, "Previous"), seed.element, h("button", { type: "button", on: { click: () => turn(first() + count) } }, "Next")), trouble,
    checkpointRows,
    helpNote("What this is", "The same random numbers given to G at every checkpoint that is still kept. What stays is what G settled on early; what changes is what it is still learning."), reproduce(id, () => ({ view: "checkpoints", ...queryParameters() })));
  return redraw;
}

function nearestMode(stage, context) {
  const { state, id, width, height } = context;
  const seed = () => state.number("seed", 0);
  const names = ["generated", "nearest", "2nd", "3rd", "4th", "5th"];
  const canvases = names.map((name) => imageCanvas(width, height, `${name}`));
  const { draw, trouble } = imageLoader(context, null, "/api/nearest.png");
  const redraw = () => draw({ seed: seed(), ...context.samplingOptions() }, (bitmap) => canvases.forEach((canvas, index) => paintTile(canvas, bitmap, layoutOf(names.length, width, height), index)));
  const input = integerField("Seed", seed(), 0, 1e9, (value) => go(value));
  const go = (value) => (state.set({ seed: Math.max(0, value) }), input.set(seed()), redraw());
  stage.append(h("div", { class: "controls" }, h("button", { type: "button", on: { click: () => go(seed() - 1) } }, "Previous seed"), input.element, h("button", { type: "button", on: { click: () => go(seed() + 1) } }, "Next seed")), trouble,
    h("div", { class: "neighbors" }, names.map((name, index) => h("figure", { class: index ? "" : "first" }, h("figcaption", {}, name), h("div", { class: "image-frame" }, canvases[index])))),
    helpNote("What this is", "A generated picture, and the training pictures nearest to it. If the nearest is the same picture, G has learned by heart; if they are only of the same kind, G has made something new. Nearness is counted in pixels, so a shifted copy can hide from it."), reproduce(id, () => ({ view: "nearest", seed: seed(), ...context.samplingOptions() })));
  return redraw;
}

function inversionMode(stage, context) {
  const { id, width, height, signal, state } = context;
  const given = h("img", { class: "picture", alt: "The picture you gave", hidden: true }), found = h("img", { class: "picture", alt: "The nearest picture that G can draw", hidden: true });
  for (const image of [given, found]) image.style.aspectRatio = `${width} / ${height}`;
  const words = h("p", { class: "readout", role: "status" }), numbers = h("textarea", { readonly: true, rows: 4, "aria-label": "The latent", hidden: true });
  let name = "picture.png", point = "";
  const onward = h("div", { class: "row", hidden: true },
    h("button", { type: "button", on: { click: () => context.switchMode(null, { corners: [point, 0, 1, 2].join(","), x: 0, y: 0, label: null }) } }, "Drag away from it"),
    h("button", { type: "button", on: { click: () => context.switchMode("walk", { stops: [point, 0, 1].join(","), label: null }) } }, "Walk from it"));
  const input = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", class: "visually-hidden", id: "upload" });
  const drop = h("label", { class: "drop", for: "upload" }, h("b", {}, "Choose a picture"), h("span", {}, "or drop one here: PNG, JPEG or WebP, at most 8 MB"));
  async function take(file) {
    if (!file) return;
    name = file.name;
    if (given.src) URL.revokeObjectURL(given.src);
    given.src = URL.createObjectURL(file);
    given.hidden = false;
    found.hidden = numbers.hidden = onward.hidden = true;
    words.textContent = "Searching: this takes some seconds …";
    drop.setAttribute("aria-busy", "true");
    try {
      const result = await upload("/api/invert", { run: id, label: state.get("label") }, file, signal);
      found.src = result.image;
      found.hidden = numbers.hidden = onward.hidden = false;
      point = result.latent;
      numbers.value = JSON.stringify(result.z.map((value) => Number(value.toFixed(4))));
      words.textContent = `Found: off by ${formatNumber(result.rmse)} of 255 grey levels (root mean square)${result.label === null || result.label === undefined ? "" : `, as class ${context.facts.class_names?.[result.label] ?? result.label}`}.`;
    } catch (error) {
      if (error.name !== "AbortError") words.textContent = error.message;
    }
    drop.removeAttribute("aria-busy");
  }
  input.addEventListener("change", () => take(input.files[0]));
  for (const kind of ["dragover", "dragleave", "drop"]) drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
  const figure = (image, title) => h("figure", {}, h("figcaption", {}, title), h("div", { class: "image-frame" }, image));
  stage.append(input, drop, words, h("div", { class: "inversion-pair" }, figure(given, "Yours"), figure(found, "The nearest that G can draw")), onward, numbers,
    helpNote("What this is", "The search runs G backwards: it changes the random numbers until G draws your picture as well as it can. What G cannot draw, it has not learned. A picture unlike the training pictures comes back as something that G knows."),
    reproduce(id, () => ({ view: "invert", label: state.get("label"), name })));
  return () => {};
}

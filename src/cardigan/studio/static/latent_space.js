// The latent room: what lies between, beside and behind the pictures that G can draw.
import { address, json, newest, picture, upload } from "./api.js";
import { choice, counter, h, lesson, notice, number, reoffer, say, segmented, short, slider, whole } from "./dom.js";
import { frame, gridSize, layoutOf, paint, paintTile, place, tiles } from "./pictures.js";
import { reproduce } from "./reproduce.js";

const MODES = { pad: ["Drag", pad], seeds: ["Seeds", seeds], walk: ["Walk", walk], mix: ["Arithmetic", mix], moments: ["Over time", moments], nearest: ["Nearest", nearest], invert: ["Find a picture", invert] };
const PAGE = 36;

/** "3,7,z:AACAPw" as seeds and latents that were found. */
const listed = (text) => (text ?? "").split(",").filter(Boolean).map((each) => (each.startsWith("z") ? each : Number(each))).filter((each) => typeof each === "string" || Number.isInteger(each));
const named = (point) => (typeof point === "string" ? "found" : point);

export async function mount({ host, signal, state, id, run, bus }) {
  const facts = { classes: run.classes, class_names: run.class_names, get checkpoints() { return run.checkpoints.map((each) => each.images_seen); } };
  const [width, height] = run.size.split("x").map(Number);
  const stage = h("div", { class: "stage" });
  let redraw = () => {};
  const room = {
    id, run, facts, state, signal, width, height,
    /** What every picture of the room is drawn with. */
    common: () => ({ label: facts.classes ? state.get("label") : null, truncation: state.get("truncation"), directions: state.get("directions"), checkpoint: state.get("checkpoint") }),
    ask: (path, parameters) => picture(path, { run: id, ...parameters }, signal),
  };
  room.go = (mode, changes) => {
    state.set({ mode, ...changes });
    modes.replaceChildren(choose());
    enter();
    stage.querySelector(".pad, button")?.focus();
  };
  const mode = () => (state.get("mode", "pad") in MODES ? state.get("mode", "pad") : "pad");
  const release = () => stage.querySelectorAll("img[src^='blob:']").forEach((image) => URL.revokeObjectURL(image.src));
  signal.addEventListener("abort", release);
  const enter = () => {
    release();
    stage.replaceChildren();
    redraw = MODES[mode()][1](stage, room);
    side.classList.toggle("idle", mode() === "invert");
    redraw();
  };
  const changed = (changes) => (state.set(changes), redraw());
  const choose = () => segmented("What to do", Object.entries(MODES).map(([name, [words]]) => [name, words]), mode(), (value) => (state.set({ mode: value === "pad" ? null : value }), enter()));
  const modes = h("div", { class: "controls modes" }, choose());
  const kept = choice("Generator after", generators(run), state.get("checkpoint", ""), (value) => changed({ checkpoint: value }));
  const side = h("aside", { class: "knobs", "aria-label": "How pictures are drawn" }, knobs(room, changed, kept, null));
  host.append(h("h2", { class: "unseen" }, "Latent room"),
    modes,
    h("div", { class: "room" }, side, stage));
  enter();
  let told = facts.checkpoints.join();
  bus.addEventListener("run", () => { // training has written a checkpoint, and removed an old one
    if (told === facts.checkpoints.join()) return;
    told = facts.checkpoints.join();
    reoffer(kept, generators(run), state.get("checkpoint", ""));
    if (mode() === "moments") redraw();
  }, { signal });
  json("/api/latent", { run: id }, signal).then(({ directions }) => !signal.aborted && side.replaceChildren(...knobs(room, changed, kept, directions)), (error) => !signal.aborted && side.append(notice(error.message, "error")));
}

const generators = (run) => [["", "newest"], ...run.checkpoints.map((each) => [each.images_seen, `${whole(each.images_seen)} images${each.best ? ", best" : ""}`])];

/** Class, truncation, moment (`kept`) and directions: shared by all modes. Directions take the server seconds the first time; null until they are known. */
function knobs({ facts, state }, changed, kept, directions) {
  const names = facts.class_names ?? [];
  const amounts = new Map((state.get("directions") ?? "").split(",").filter(Boolean).map((part) => part.split(":").map(Number)));
  const truncation = slider({ label: "Truncation", min: 0, max: 1, step: 0.02, value: state.number("truncation", 1), hint: "Less: more typical, less varied", moved: (value) => changed({ truncation: value === 1 ? null : value }) });
  const written = () => [...amounts].filter(([, amount]) => amount).map(([which, amount]) => `${which}:${amount}`).join(",");
  const sliders = (directions ?? new Array(8).fill({ share: null })).map((direction, which) => slider({
    label: [`${which + 1}`, h("small", {}, direction.share === null ? "" : ` ${(100 * direction.share).toFixed(1)} %`)], min: -4, max: 4, step: 0.1, value: amounts.get(which) ?? 0, shown: (value) => (value > 0 ? "+" : "") + value.toFixed(1),
    moved: (value) => (amounts.set(which, value), changed({ directions: written() })),
  }));
  const reset = h("button", { type: "button", class: "small", on: { click: () => {
    amounts.clear();
    sliders.forEach((each) => each.set(0));
    truncation.set(1);
    changed({ directions: null, truncation: null });
  } } }, "As trained");
  return [
    facts.classes ? choice("Class", [["", "each seed's own"], ...Array.from({ length: facts.classes }, (_, index) => [index, names[index] ?? String(index)])], state.get("label", ""), (value) => changed({ label: value })) : null,
    kept, truncation.element,
    h("fieldset", { class: "directions", disabled: !directions }, h("legend", {}, "Principal directions"), sliders.map((each) => each.element)), reset,
    h("p", { class: "hint" }, "The ways in which G's first features vary most, and how much of their variance each accounts for. What one means, you have to see."),
  ].filter(Boolean);
}

/** A canvas of the room's pictures that is redrawn by `deed(parameters)`, and says where it cannot. */
function drawn(room, canvas, path) {
  const trouble = h("p", { class: "notice error", hidden: true });
  const draw = newest(async (parameters, then) => {
    const bitmap = await room.ask(path, parameters);
    trouble.hidden = true;
    if (then) await then(bitmap);
    else paint(canvas, bitmap);
    bitmap.close();
  }, (error) => ((trouble.textContent = error.message), (trouble.hidden = false)));
  return { draw, trouble };
}

function pad(stage, room) {
  const { state, id, width, height } = room;
  let corners = listed(state.get("corners"));
  if (corners.length !== 4) corners = [0, 1, 2, 3];
  let [x, y] = [state.number("x", 0.5), state.number("y", 0.5)];
  const grid = () => state.number("grid", 1);
  const asked = () => ({ corners: corners.join(","), x: x.toFixed(3), y: y.toFixed(3), grid: grid(), ...(grid() > 1 ? { span: state.number("span", 0.5) } : {}), ...room.common() });
  const shape = () => gridSize(layoutOf(grid() ** 2, width, height));
  const canvas = frame(...shape(), "The picture at the handle");
  const { draw, trouble } = drawn(room, canvas, "/api/pad.png");
  const cornerCanvases = ["top left", "top right", "bottom left", "bottom right"].map((words) => frame(width, height, `The ${words} corner`));
  const cornerDraw = drawn(room, null, "/api/seeds.png");
  const drawCorners = () => cornerDraw.draw({ seeds: corners.join(","), ...room.common() }, (bitmap) => cornerCanvases.forEach((each, index) => paintTile(each, bitmap, layoutOf(4, width, height), index)));
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
    draw(asked());
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
  const inputs = corners.map((seed, index) => counter(["Top left", "Top right", "Bottom left", "Bottom right"][index], seed, 0, 1e9, (value) => ((corners[index] = value), chosen())));
  const chosen = () => {
    state.set({ corners: corners.join(",") });
    drawCorners();
    draw(asked());
  };
  const others = h("button", { type: "button", on: { click: () => {
    const above = Math.max(-1, ...corners.filter(Number.isInteger)) + 1;
    corners = corners.map((_, index) => above + index);
    inputs.forEach((input, index) => input.set(corners[index]));
    chosen();
  } } }, "Four others");
  const span = slider({ label: "How far apart", min: 0.05, max: 1, step: 0.05, value: state.number("span", 0.5), moved: (value) => (state.set({ span: value }), draw(asked())) });
  span.element.classList.toggle("off", grid() === 1);
  stage.append(h("div", { class: "bench pad-bench" }, h("div", { class: "pad-side" }, surface, h("div", { class: "corners" }, inputs.map((input) => input.element)), others),
    h("div", { class: "big" }, h("div", { class: "plate" }, canvas), h("div", { class: "controls" }, segmented("Pictures", [[1, "one"], [3, "3 × 3"], [4, "4 × 4"], [8, "8 × 8"]], grid(), (value) => {
      state.set({ grid: value === 1 ? null : value });
      span.element.classList.toggle("off", value === 1);
      draw(asked());
    }), span.element), trouble)),
  lesson("What this is", "Every picture begins as a list of random numbers. The four corners are four such lists; the handle mixes them. Nothing in between was ever a training picture: a G that has understood draws a believable picture everywhere, and one that has learned by heart jumps from one to the next."),
  reproduce(id, () => ({ view: "pad", ...asked() })));
  put();
  return () => (drawCorners(), draw(asked()));
}

/** A page of seeds that can be picked; `picked` is told the seed, `marked` says what to show on it. */
function picker(room, { picked, marked }) {
  const { state, width, height } = room;
  const first = () => state.number("first", 0);
  const layout = { ...layoutOf(PAGE, width, height), columns: 9, rows: 4 };
  const drawnAs = layoutOf(PAGE, width, height);
  const grid = tiles(layout, { label: (index) => `Seed ${first() + index}`, picked: (index) => (picked(first() + index), grid.mark()), marked: (index) => marked(first() + index) });
  const { draw, trouble } = drawn(room, grid.canvas, "/api/seeds.png");
  const asked = () => ({ seeds: `${first()}-${first() + PAGE - 1}`, ...room.common() });
  const redraw = () => draw(asked(), (bitmap) => rearranged(grid.canvas, bitmap, drawnAs, layout));
  const seed = counter("First seed", first(), 0, 1e9, (value) => turn(value));
  const turn = (value) => {
    state.set({ first: Math.max(0, value) || null });
    seed.set(first());
    grid.relabel();
    grid.mark();
    redraw();
  };
  const element = h("div", { class: "picker" }, h("div", { class: "controls" }, h("button", { type: "button", on: { click: () => turn(first() - PAGE) } }, "Previous"), seed.element, h("button", { type: "button", on: { click: () => turn(first() + PAGE) } }, "Next")), h("div", { class: "plate" }, grid.element), trouble);
  return { element, redraw, asked, mark: grid.mark };
}

/** Copy a grid's pictures into another shape of grid. */
async function rearranged(canvas, bitmap, from, to) {
  const [width, height] = gridSize(to), sheet = new OffscreenCanvas(width, height), pen = sheet.getContext("2d");
  for (let index = 0; index < to.count; index++) pen.drawImage(bitmap, ...place(from, index), to.width, to.height, ...place(to, index), to.width, to.height);
  paint(canvas, sheet);
}

/** The chosen seeds, drawn small; a click takes one out. */
function tray(room, { words, seeds, removed }) {
  const row = h("div", { class: "chosen" });
  const { draw, trouble } = drawn(room, null, "/api/seeds.png");
  const redraw = () => {
    const list = seeds();
    if (!list.length) return row.replaceChildren(h("span", { class: "hint" }, words));
    const canvases = list.map(() => frame(room.width, room.height, ""));
    row.replaceChildren(...list.map((seed, index) => h("button", { type: "button", "aria-label": typeof seed === "string" ? "Take the found picture out" : `Take seed ${seed} out`, title: "Take it out", on: { click: () => removed(index) } }, canvases[index], h("span", {}, named(seed)))));
    draw({ seeds: list.join(","), ...room.common() }, (bitmap) => canvases.forEach((canvas, index) => paintTile(canvas, bitmap, layoutOf(list.length, room.width, room.height), index)));
  };
  return { element: h("div", {}, row, trouble), redraw };
}

function seeds(stage, room) {
  const { state, id, width, height } = room;
  const big = frame(width, height, "The chosen picture"), caption = h("b");
  const one = drawn(room, big, "/api/seeds.png");
  const seed = () => state.number("seed", 0);
  const show = () => {
    caption.textContent = `Seed ${seed()}`;
    one.draw({ seeds: seed(), ...room.common() });
  };
  const go = (value) => (state.set({ seed: Math.max(0, value) }), grid.mark(), show(), say(`Seed ${seed()}`));
  const grid = picker(room, { picked: go, marked: (each) => (each === seed() ? "●" : "") });
  stage.append(h("div", { class: "bench" }, grid.element, h("figure", { class: "single" }, h("figcaption", {}, caption), h("div", { class: "plate" }, big), h("div", { class: "row" }, h("button", { type: "button", on: { click: () => go(seed() - 1) } }, "Previous seed"), h("button", { type: "button", on: { click: () => go(seed() + 1) } }, "Next seed")), one.trouble)),
    lesson("What this is", "A seed is a number from which a picture's random numbers are made: the same seed gives the same picture on every machine. Choose one to see it large."), reproduce(id, () => ({ view: "seeds", ...grid.asked() })));
  return () => (grid.redraw(), show());
}

function walk(stage, room) {
  const { state, id, width, height } = room;
  let stops = listed(state.get("stops"));
  if (!stops.length) stops = [0, 1, 2];
  const film = h("img", { class: "film", alt: "A walk between the chosen pictures", width, height });
  film.hidden = true;
  film.style.aspectRatio = `${width} / ${height}`;
  const trouble = h("p", { class: "notice error", hidden: true }), links = h("span", { class: "row" });
  const asked = () => ({ seeds: stops.join(","), frames: state.number("frames", 60), fps: state.number("fps", 24), path: state.get("path", "auto"), loop: state.get("loop", "1") === "1" ? 1 : 0, ...room.common() });
  const play = newest(async () => {
    if (stops.length < 2) return;
    const parameters = { run: id, ...asked() };
    links.replaceChildren(...room.run.films.map((format) => h("a", { class: "button small", href: address("/api/walk", { ...parameters, format }), download: `walk.${format}` }, format.toUpperCase())));
    const response = await fetch(address("/api/walk", { ...parameters, format: "webp" }), { signal: room.signal });
    if (!response.ok) throw Object.assign(new Error((await response.json()).error), { status: response.status });
    trouble.hidden = true;
    if (film.src) URL.revokeObjectURL(film.src);
    film.src = URL.createObjectURL(await response.blob());
    film.hidden = false;
  }, (error) => ((trouble.textContent = error.message), (trouble.hidden = false)));
  const changed = () => (state.set({ stops: stops.join(",") }), grid.mark(), list.redraw(), play());
  const grid = picker(room, { picked: (seed) => (stops.length < 24 && stops.push(seed), changed()), marked: (seed) => (stops.includes(seed) ? String(stops.indexOf(seed) + 1) : "") });
  const list = tray(room, { words: "Choose pictures below: the walk passes them in this order.", seeds: () => stops, removed: (index) => (stops.splice(index, 1), changed()) });
  const set = (changes) => (state.set(changes), play());
  stage.append(h("div", { class: "bench" }, h("div", {}, h("h3", {}, "Stops"), list.element, grid.element),
    h("figure", { class: "single" }, h("figcaption", {}, h("b", {}, "The walk")), h("div", { class: "plate square" }, film), trouble, h("div", { class: "controls tight" },
      choice("Frames", [[24, "24"], [60, "60"], [120, "120"], [240, "240"]], asked().frames, (value) => set({ frames: value })), choice("A second", [[12, "12"], [24, "24"], [30, "30"], [60, "60"]], asked().fps, (value) => set({ fps: value })),
      choice("Path", [["auto", "as fits the latents"], ["spherical", "along the sphere"], ["linear", "straight"]], asked().path, (value) => set({ path: value })),
      segmented("At the end", [["1", "loop"], ["0", "stop"]], String(asked().loop), (value) => set({ loop: value }))), h("div", { class: "row" }, h("span", { class: "label" }, "Save"), links))),
  reproduce(id, () => ({ view: "walk", ...asked() })));
  return () => (grid.redraw(), list.redraw(), play());
}

function mix(stage, room) {
  const { state, id, width, height } = room;
  const parts = [["a", "Add", "+"], ["b", "Take away", "−"], ["c", "Add as well", "+"]];
  const groups = Object.fromEntries(parts.map(([name], index) => [name, state.get(name) === undefined && state.get("b") === undefined && index < 3 ? [[1, 2, 3], [7, 8, 9], [4, 5, 6]][index] : listed(state.get(name))]));
  let into = "a";
  const canvas = frame(width, height, "The result of the arithmetic");
  const asked = () => ({ add: [groups.a, groups.c].filter((group) => group.length).map((group) => group.join(",")).join(";"), subtract: groups.b.join(","), ...room.common() });
  const { draw, trouble } = drawn(room, canvas, "/api/mix.png");
  const redraw = () => groups.a.length + groups.c.length && draw(asked());
  const changed = () => (state.set({ a: groups.a.join(",") || "-", b: groups.b.join(",") || "-", c: groups.c.join(",") || "-" }), trays.forEach((each) => each.redraw()), grid.mark(), redraw());
  const trays = parts.map(([name]) => tray(room, { words: "Choose this group, then pictures below.", seeds: () => groups[name], removed: (index) => (groups[name].splice(index, 1), changed()) }));
  const grid = picker(room, {
    picked: (seed) => {
      const at = groups[into].indexOf(seed);
      if (at >= 0) groups[into].splice(at, 1);
      else groups[into].push(seed);
      changed();
    },
    marked: (seed) => parts.filter(([name]) => groups[name].includes(seed)).map(([, , sign]) => sign).join(""),
  });
  stage.append(h("div", { class: "sum" }, parts.map(([name, words, sign], index) => h("div", { class: "term" }, h("h3", {}, h("span", { class: "sign", "aria-hidden": "true" }, sign), words), trays[index].element))),
    h("div", { class: "bench halves" }, h("div", {}, segmented("Pictures go into", parts.map(([name, words]) => [name, words]), into, (value) => (into = value)), grid.element), h("figure", { class: "single" }, h("figcaption", {}, h("b", {}, "The averages, and the result")), h("div", { class: "plate" }, canvas), trouble)),
    lesson("What this is", "Average the random numbers of a few pictures that share something, take those of another group away, add a third: the result often shares the difference. The DCGAN paper made a smiling man out of smiling women, neutral women and neutral men this way. Three or more pictures a group work better than one."),
    reproduce(id, () => ({ view: "mix", ...asked() })));
  return () => (grid.redraw(), trays.forEach((each) => each.redraw()), redraw());
}

function moments(stage, room) {
  const { state, id, width, height, facts } = room;
  const count = 8, first = () => state.number("first", 0);
  const ladder = h("div", { class: "ladder" }), rungs = new Map();
  const rung = (seen) => {
    const canvas = frame(...gridSize({ columns: count, rows: 1, width, height, gap: 2 }), `Seeds ${first()} to ${first() + count - 1} after ${whole(seen)} images`);
    return { canvas, element: h("figure", {}, h("figcaption", {}, h("b", {}, short(seen)), " images"), h("div", { class: "plate" }, canvas)) };
  };
  const asked = () => ({ seeds: `${first()}-${first() + count - 1}`, ...room.common(), checkpoint: null });
  const { draw, trouble } = drawn(room, null, "/api/moments.png");
  const redraw = () => {
    const rows = facts.checkpoints;
    if (!rows.length) return ladder.replaceChildren(notice("This run keeps no checkpoint yet."));
    for (const seen of rows) if (!rungs.has(seen)) rungs.set(seen, rung(seen));
    ladder.replaceChildren(...rows.map((seen) => rungs.get(seen).element));
    draw({ ...asked(), checkpoints: rows.join(",") }, (bitmap) => rows.forEach((seen, index) => paint(rungs.get(seen).canvas, bitmap, 0, index * (height + 2), Math.min(bitmap.width, count * (width + 2) - 2), height)));
  };
  const seed = counter("First seed", first(), 0, 1e9, (value) => turn(value));
  const turn = (value) => (state.set({ first: Math.max(0, value) || null }), seed.set(first()), redraw());
  stage.append(h("div", { class: "controls" }, h("button", { type: "button", on: { click: () => turn(first() - count) } }, "Previous"), seed.element, h("button", { type: "button", on: { click: () => turn(first() + count) } }, "Next")), trouble,
    ladder,
    lesson("What this is", "The same random numbers given to G at every checkpoint that is still kept. What stays is what G settled on early; what changes is what it is still learning."), reproduce(id, () => ({ view: "moments", ...asked() })));
  return redraw;
}

function nearest(stage, room) {
  const { state, id, width, height } = room;
  const seed = () => state.number("seed", 0);
  const names = ["generated", "nearest", "2nd", "3rd", "4th", "5th"];
  const canvases = names.map((name) => frame(width, height, `${name}`));
  const { draw, trouble } = drawn(room, null, "/api/nearest.png");
  const redraw = () => draw({ seed: seed(), ...room.common() }, (bitmap) => canvases.forEach((canvas, index) => paintTile(canvas, bitmap, layoutOf(names.length, width, height), index)));
  const input = counter("Seed", seed(), 0, 1e9, (value) => go(value));
  const go = (value) => (state.set({ seed: Math.max(0, value) }), input.set(seed()), redraw());
  stage.append(h("div", { class: "controls" }, h("button", { type: "button", on: { click: () => go(seed() - 1) } }, "Previous seed"), input.element, h("button", { type: "button", on: { click: () => go(seed() + 1) } }, "Next seed")), trouble,
    h("div", { class: "neighbours" }, names.map((name, index) => h("figure", { class: index ? "" : "first" }, h("figcaption", {}, name), h("div", { class: "plate" }, canvases[index])))),
    lesson("What this is", "A generated picture, and the training pictures nearest to it. If the nearest is the same picture, G has learned by heart; if they are only of the same kind, G has made something new. Nearness is counted in pixels, so a shifted copy can hide from it."), reproduce(id, () => ({ view: "nearest", seed: seed(), ...room.common() })));
  return redraw;
}

function invert(stage, room) {
  const { id, width, height, signal, state } = room;
  const given = h("img", { class: "picture", alt: "The picture you gave", hidden: true }), found = h("img", { class: "picture", alt: "The nearest picture that G can draw", hidden: true });
  for (const image of [given, found]) image.style.aspectRatio = `${width} / ${height}`;
  const words = h("p", { class: "readout", role: "status" }), numbers = h("textarea", { readonly: true, rows: 4, "aria-label": "The latent", hidden: true });
  let name = "picture.png", point = "";
  const onward = h("div", { class: "row", hidden: true },
    h("button", { type: "button", on: { click: () => room.go(null, { corners: [point, 0, 1, 2].join(","), x: 0, y: 0, label: null }) } }, "Drag away from it"),
    h("button", { type: "button", on: { click: () => room.go("walk", { stops: [point, 0, 1].join(","), label: null }) } }, "Walk from it"));
  const input = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", class: "unseen", id: "upload" });
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
      found.src = result.picture;
      found.hidden = numbers.hidden = onward.hidden = false;
      point = result.point;
      numbers.value = JSON.stringify(result.z.map((value) => Number(value.toFixed(4))));
      words.textContent = `Found: off by ${number(result.error)} of 255 grey levels (root mean square)${result.label === null || result.label === undefined ? "" : `, as class ${room.facts.class_names?.[result.label] ?? result.label}`}.`;
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
  const figure = (image, title) => h("figure", {}, h("figcaption", {}, title), h("div", { class: "plate" }, image));
  stage.append(input, drop, words, h("div", { class: "duo" }, figure(given, "Yours"), figure(found, "The nearest that G can draw")), onward, numbers,
    lesson("What this is", "The search runs G backwards: it changes the random numbers until G draws your picture as well as it can. What G cannot draw, it has not learned. A picture unlike the training pictures comes back as something that G knows."),
    reproduce(id, () => ({ view: "invert", label: state.get("label"), name })));
  return () => {};
}

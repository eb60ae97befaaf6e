// The page's controls and images. The images come from `engine.js`, in a web worker where the browser allows one.
{
const model = JSON.parse(document.getElementById("model").textContent);
const { channels, height, width } = model.image, { latent_size: latent, classes } = model.program;
const urlParameters = new URLSearchParams(location.search);
const $ = (id) => document.getElementById(id);
const CORNERS = ["top left", "top right", "bottom left", "bottom right"];
const SHEET = 24, SEED_LABEL = -1, SECONDS_A_SIDE = 3;
const FEW_CLASSES = 24;
const SLOW = 20; // milliseconds per image

/** The state: everything that is drawn depends on it alone. `label` is a class, or SEED_LABEL for each seed's own. */
const state = { corners: [0, 1, 2, 3], x: 0.5, y: 0.5, grid: 4, span: 0.6, label: SEED_LABEL, truncation: 1, amounts: [], first: 0n, next: 0 };

/* The engine */

function decodedBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** Start the engine: return { kind, generate(z, classes, count) }, which returns a promise of [image, channel, row, column] floats. */
async function startEngine() {
  const holder = $("weights"), block = decodedBase64(holder.textContent);
  holder.remove(); // as text it is a third larger than the block, and it is not needed again
  const matmul_wasm = urlParameters.get("engine") === "javascript" ? null : decodedBase64(model.matmul_wasm);
  const engineInput = { program: model.program, block, matmul_wasm };
  if (urlParameters.get("worker") !== "no") {
    try {
      return await startWorkerEngine(engineInput);
    } catch { /* some browsers give a page on disk no workers: it draws by itself then */ }
  }
  const engine = openEngine(engineInput);
  return { kind: engine.kind, generate: async (...given) => engine.generate(...given) };
}

async function startWorkerEngine(engineInput) {
  const address = URL.createObjectURL(new Blob([$("engine").textContent], { type: "text/javascript" }));
  const worker = new Worker(address), waiting = new Map();
  let last = 0;
  const failed = (error) => { waiting.forEach(({ refuse }) => refuse(error)); waiting.clear(); };
  worker.onerror = (event) => { event.preventDefault?.(); failed(new Error(event.message || "no worker")); };
  worker.onmessage = ({ data }) => {
    const { answer, refuse } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) refuse(new Error(data.error));
    else answer(data);
  };
  const ask = (message) => new Promise((answer, refuse) => { waiting.set(++last, { answer, refuse }); worker.postMessage({ id: last, ...message }); });
  try {
    const { kind } = await ask(engineInput);
    return { kind: `${kind} in a worker`, generate: async (z, weights, count) => (await ask({ z, classes: weights, count })).pixels };
  } catch (error) {
    worker.terminate();
    throw error;
  } finally {
    URL.revokeObjectURL(address);
  }
}

/* From seeds to images */

const known = new Map();
/** Return a seed's z and class; the last ones are cached. */
function seedLatent(seed) {
  const key = String(seed);
  if (!known.has(key)) {
    if (known.size > 500) known.clear();
    known.set(key, { z: sampleLatent(key, latent, model.distribution), label: classes ? sampleLabel(key, classes, model.class_counts) : 0 });
  }
  return known.get(key);
}

const seedLabel = (seed, label) => (label === SEED_LABEL ? seedLatent(seed).label : label);

/** Move z along the principal directions, then toward the middle. */
function applyOptions(z, { amounts, truncation }) {
  const out = Float32Array.from(z);
  amounts.forEach((amount, number) => {
    if (amount) model.directions.vectors[number].forEach((x, i) => { out[i] += amount * model.directions.std[number] * x; });
  });
  return out.map((x) => x * truncation);
}

/** Return a batch for the engine of points { z, mix }, where mix gives each class its weight. */
function makeBatch(points, style) {
  const z = new Float32Array(points.length * latent), weights = classes ? new Float32Array(points.length * classes) : null;
  points.forEach((spot, i) => {
    z.set(applyOptions(spot.z, style), i * latent);
    const row = new Float64Array(classes);
    spot.mix.forEach(([label, share]) => { row[label] += share; });
    weights?.set(row, i * classes);
  });
  return [z, weights, points.length];
}

const seedPoint = (seed, label = state.label) => ({ z: seedLatent(seed).z, mix: [[seedLabel(seed, label), 1]] });
/** Return the point at a position between the corners: their latents are interpolated, and their classes are mixed with the corners' weights. */
function positionPoint([x, y], corners = state.corners, label = state.label) {
  const z = interpolateCorners(corners.map((seed) => seedLatent(seed).z), x, y, model.distribution), weights = cornerWeights(x, y);
  return { z, mix: corners.map((seed, i) => [seedLabel(seed, label), weights[i]]) };
}

/** Paint image `index` of a batch on a canvas; numbers outside [-1, 1] are clipped, as when Cardigan saves them. */
function paint(canvas, pixels, index) {
  const image = new ImageData(width, height), plane = height * width, from = index * channels * plane, color = channels >= 3 ? plane : 0;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round((pixels[from + c * color + i] + 1) * 127.5);
    image.data[4 * i + 3] = channels === 4 ? Math.round((pixels[from + 3 * plane + i] + 1) * 127.5) : 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.dataset.drawn = "";
}

const canvasOf = () => h("canvas", { width, height, "aria-hidden": "true", class: width < 128 ? "sharp" : "" });

/** Return a function that does the work now, or once more after the work in progress: later requests replace earlier ones. */
function latestOnly(work) {
  let doing = null, again = false;
  return () => {
    if (doing) again = true;
    else doing = (async () => { do { again = false; await work(); } while (again); })().catch(showError).finally(() => { doing = null; });
    return doing;
  };
}

function showError(error) {
  $("error").textContent = `The images could not be generated: ${error.message}. Try a newer browser, or a device with more memory.`;
  $("error").hidden = false;
}

/* The stage, the pad, the sheet */

let engine = null, chunkSize = 16, redraws = 0;
const tiles = $("tiles"), cornerCanvases = CORNERS.map(canvasOf), sheetTiles = [];

const drawGrid = latestOnly(async () => {
  const places = gridPositions(state.x, state.y, state.grid, state.span), count = places.length;
  const pixels = await engine.generate(...makeBatch(places.map((place) => positionPoint(place)), state));
  if (tiles.children.length !== count) {
    tiles.replaceChildren(...places.map(canvasOf));
    tiles.style.setProperty("--columns", Math.sqrt(count));
  }
  [...tiles.children].forEach((canvas, i) => paint(canvas, pixels, i));
  tiles.setAttribute("aria-label", `${count === 1 ? "The image" : `${count} images around the position`} ${positionText()}`);
  redraws += 1;
});

const drawCorners = latestOnly(async () => {
  const pixels = await engine.generate(...makeBatch(state.corners.map((seed) => seedPoint(seed)), state));
  cornerCanvases.forEach((canvas, i) => paint(canvas, pixels, i));
});

const drawSeeds = latestOnly(async () => {
  const first = state.first;
  for (let from = 0; from < SHEET && first === state.first; from += chunkSize) { // in parts, so that the large image stays responsive
    const part = Array.from({ length: Math.min(chunkSize, SHEET - from) }, (_, i) => seedPoint(first + BigInt(from + i)));
    const pixels = await engine.generate(...makeBatch(part, state));
    part.forEach((_, i) => paint(sheetTiles[from + i].canvas, pixels, i));
  }
});

const drawAll = () => { drawGrid(); drawCorners(); drawSeeds(); updateCommand(); };
const positionText = () => `${Math.round(100 * state.x)} % across, ${Math.round(100 * state.y)} % down`;

function moveTo(x, y) {
  [state.x, state.y] = [x, y].map((value) => Math.min(1, Math.max(0, Math.round(value * 10_000) / 10_000))); // steps end on corners
  const pad = $("pad");
  pad.style.setProperty("--x", state.x);
  pad.style.setProperty("--y", state.y);
  pad.setAttribute("aria-valuenow", Math.round(100 * state.x));
  pad.setAttribute("aria-valuetext", positionText());
  return drawGrid();
}

function buildPad() {
  const pad = $("pad");
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    moveTo((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  pad.prepend(...cornerCanvases.map((canvas, i) => h("span", { class: `corner c${i}` }, canvas)));
  pad.addEventListener("pointerdown", (event) => { stopWalk(); pad.setPointerCapture(event.pointerId); at(event); });
  pad.addEventListener("pointermove", (event) => pad.hasPointerCapture(event.pointerId) && at(event));
  pad.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.02;
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    const to = { Home: [0, 0], End: [1, 1] }[event.key] ?? (by && [state.x + by[0], state.y + by[1]]);
    if (!to) return;
    event.preventDefault();
    stopWalk();
    moveTo(...to);
  });
}

function buildCorners() {
  $("corners").replaceChildren(...CORNERS.map((words, i) => {
    const input = h("input", { inputmode: "numeric", autocomplete: "off", value: String(state.corners[i]), "data-corner": i });
    input.addEventListener("change", () => readSeed(input, (seed) => setCorner(i, seed)));
    return h("label", { class: "field" }, `${words[0].toUpperCase()}${words.slice(1)}`, input);
  }));
}

/** Call a function with the seed in a field, if it is valid. */
function readSeed(input, taken) {
  const text = input.value.trim(), good = /^\d{1,19}$/.test(text) && BigInt(text) < 2n ** 63n;
  input.setAttribute("aria-invalid", String(!good));
  if (good) taken(BigInt(text));
  else announce("A seed is an integer from 0 to 2^63 - 1.");
}

function setCorner(corner, seed) {
  state.corners[corner] = seed;
  const input = document.querySelector(`[data-corner="${corner}"]`);
  input.value = String(seed);
  input.removeAttribute("aria-invalid");
  updateSeedLabels();
  updateCommand();
  drawCorners();
  drawGrid();
}

function buildSheet() {
  for (let i = 0; i < SHEET; i++) {
    const canvas = canvasOf(), name = h("span", {}), button = h("button", { type: "button", class: "seed" }, canvas, name);
    button.addEventListener("click", () => {
      const corner = state.next, seed = state.first + BigInt(i);
      state.next = (corner + 1) % 4;
      setCorner(corner, seed);
      announce(`Seed ${seed} is now at the pad's ${CORNERS[corner]}.`);
    });
    sheetTiles.push({ canvas, name, button });
  }
  $("seeds").replaceChildren(...sheetTiles.map(({ button }) => button));
}

function updateSeedLabels() {
  sheetTiles.forEach(({ name, button }, i) => {
    const seed = state.first + BigInt(i), corner = state.corners.findIndex((each) => BigInt(each) === seed);
    name.textContent = String(seed);
    button.setAttribute("aria-label", `Put seed ${seed} at the pad's ${CORNERS[state.next]}${corner < 0 ? "" : `; it is now at the ${CORNERS[corner]}`}`);
    button.toggleAttribute("data-chosen", corner >= 0);
  });
  $("sheet-hint").textContent = `Click one to put it on the pad, at the ${CORNERS[state.next]}.`;
}

function showSeedsFrom(first) {
  const end = 2n ** 63n - BigInt(SHEET);
  state.first = first < 0n ? 0n : first > end ? end : first;
  $("first").value = String(state.first);
  $("first").removeAttribute("aria-invalid");
  updateSeedLabels();
  drawSeeds();
}

/* Settings */

function segmented(fieldset, name, choices, chosen, picked) {
  fieldset.append(...choices.map(([value, words]) => {
    const input = h("input", { type: "radio", name, value });
    input.checked = value === chosen;
    input.addEventListener("change", () => picked(value));
    return h("label", {}, input, h("span", {}, words));
  }));
}

const resets = [];
function slider({ label, min, max, step, start, onChange: change }) {
  const input = h("input", { type: "range", min, max, step, "aria-label": label }), output = h("output", {});
  const put = (value) => { input.value = value; output.textContent = Number(value).toFixed(step < 0.1 ? 2 : 1); };
  input.addEventListener("input", () => { put(input.value); change(Number(input.value)); });
  put(start);
  resets.push(() => { put(start); change(start, true); });
  return h("div", { class: "slider" }, h("span", { "aria-hidden": "true" }, label), output, input);
}

function buildSettings() {
  segmented($("grids"), "grid", [[1, "One"], [3, "3 × 3"], [4, "4 × 4"], [8, "8 × 8"]], state.grid, (value) => { state.grid = value; drawGrid(); });
  const withRedraw = (change) => (value, quiet) => { change(value); if (!quiet) drawAll(); };
  $("sliders").append(
    slider({ label: "Truncation", min: 0, max: 1, step: 0.01, start: 1, onChange: withRedraw((value) => { state.truncation = value; }) }),
    slider({ label: "Extent", min: 0.05, max: 1, step: 0.05, start: state.span, onChange: (value, quiet) => { state.span = value; if (!quiet) drawGrid(); } }),
  );
  model.directions.explained_variance_ratio.forEach((share, i) => {
    state.amounts.push(0);
    $("directions").append(slider({ label: `${model.directions.names?.[i] || i + 1}: ${(100 * share).toFixed(1)} %`, min: -4, max: 4, step: 0.1, start: 0, onChange: withRedraw((value) => { state.amounts[i] = value; }) }));
  });
  $("directions").hidden = !model.directions.explained_variance_ratio.length;
  if (classes) buildClasses();
  $("reset").addEventListener("click", () => { resets.forEach((reset) => reset()); drawAll(); });
}

function buildClasses() {
  const nameOf = (label) => model.class_names[label] ?? String(label), choose = (label) => { state.label = Number(label); drawAll(); };
  const choices = [[SEED_LABEL, "By seed"], ...Array.from({ length: classes }, (_, label) => [label, nameOf(label)])];
  $("class").hidden = false;
  if (classes <= FEW_CLASSES) return segmented($("class"), "class", choices, state.label, choose);
  const select = h("select", { "aria-label": "Class" }, choices.map(([value, words]) => h("option", { value }, words)));
  select.addEventListener("change", () => choose(select.value));
  return $("class").append(select);
}

/* The walk */

let walking = 0;
function stopWalk() {
  cancelAnimationFrame(walking);
  walking = 0;
  $("walk").textContent = "Play a walk";
  $("walk").setAttribute("aria-pressed", "false");
}

/** Walk around the pad's sides, from corner to corner, beginning at the nearest place. */
function startWalk() {
  const corners = [[0, 0], [1, 0], [1, 1], [0, 1]];
  const angle = Math.atan2(state.y - 0.5, state.x - 0.5), offset = ((angle / (Math.PI / 2) + 2.5) % 4 + 4) % 4;
  const begin = performance.now();
  const step = async (now) => {
    const at = (offset + Math.max(0, now - begin) / 1000 / SECONDS_A_SIDE) % 4, side = Math.floor(at), part = at - side;
    const [from, to] = [corners[side], corners[(side + 1) % 4]], here = [0, 1].map((axis) => from[axis] + part * (to[axis] - from[axis]));
    const blend = Math.min(1, (now - begin) / 600), before = [state.x, state.y];
    moveTo(...here.map((value, axis) => before[axis] + blend * (value - before[axis])));
    if (walking) walking = requestAnimationFrame(step);
  };
  $("walk").textContent = "Pause the walk";
  $("walk").setAttribute("aria-pressed", "true");
  walking = requestAnimationFrame(step);
}

/* Taking it away */

async function saveStage() {
  const side = Math.sqrt(tiles.children.length), canvas = h("canvas", { width: side * width, height: side * height }), pen = canvas.getContext("2d");
  [...tiles.children].forEach((tile, i) => pen.drawImage(tile, (i % side) * width, Math.floor(i / side) * height));
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const link = h("a", { href: URL.createObjectURL(blob), download: `${model.name.replaceAll("/", "-")}-${state.corners.join("-")}.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  announce("Saved.");
}

function updateCommand() {
  const label = state.label === SEED_LABEL ? "" : ` --label ${shellQuote(model.class_names[state.label] ?? String(state.label))}`;
  const truncation = state.truncation === 1 ? "" : ` --truncation ${state.truncation}`;
  $("command").textContent = `cardigan sample MODEL --seeds ${state.corners.join(",")}${label}${truncation}`;
}

const shellQuote = (word) => (/^[\w.-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
const announce = (words) => { $("announcer").textContent = words; };

function updateFacts() {
  const kinds = { 1: "gray", 3: "RGB", 4: "RGBA" };
  const facts = [["Images", `${width} × ${height} ${kinds[channels] ?? ""}`], ["Parameters", model.parameters.toLocaleString("en")],
    ["Images seen in training", model.images_seen.toLocaleString("en")], ["Weights", model.weights], ["Engine", engine.kind]];
  $("facts").replaceChildren(...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  $("rounding").textContent = `the largest difference from PyTorch was ${model.max_difference.toPrecision(2)} on a scale from -1 to 1.`;
}

function buildTheme() {
  const button = $("theme"), dark = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement;
  const themed = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const name = () => { button.textContent = themed() === "dark" ? "Light" : "Dark"; button.setAttribute("aria-label", `${button.textContent}: switch the theme`); };
  button.addEventListener("click", () => {
    root.dataset.theme = themed() === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* it holds until the page is closed */ }
    name();
  });
  dark.addEventListener("change", name);
  name();
}

/** Return the first seeds whose classes differ, so that several classes are visible at the start. */
function firstCorners() {
  const found = [];
  for (let seed = 0; found.length < 4; seed++) {
    if (classes < 4 || seed > 60 || !found.some((other) => seedLatent(other).label === seedLatent(seed).label)) found.push(seed);
  }
  return found;
}

/** Return the milliseconds that one image takes in this browser: the fastest of five, because the first are slower. */
async function measureMilliseconds() {
  const times = [];
  for (let seed = 0; seed < 5; seed++) {
    const before = performance.now();
    await engine.generate(...makeBatch([seedPoint(seed)], state));
    times.push(performance.now() - before);
  }
  return Math.min(...times);
}

async function start() {
  document.documentElement.toggleAttribute("data-alpha", channels === 4);
  document.documentElement.style.setProperty("--shape", `${width} / ${height}`);
  state.corners = firstCorners();
  buildTheme();
  buildPad();
  buildCorners();
  buildSheet();
  updateSeedLabels();
  updateCommand();
  if (model.card) {
    $("card-text").append(...renderMarkdown(model.card));
    $("card").hidden = false;
  }
  engine = await startEngine();
  const milliseconds = await measureMilliseconds();
  chunkSize = Math.max(1, Math.min(8, Math.floor(120 / milliseconds)));
  if (milliseconds > SLOW) state.grid = 1; // sixteen images would follow the pointer too slowly
  buildSettings();
  updateFacts();
  $("walk").addEventListener("click", () => (walking ? stopWalk() : startWalk()));
  $("next-seeds").addEventListener("click", () => {
    const after = state.corners.reduce((most, seed) => (BigInt(seed) > most ? BigInt(seed) : most), 0n);
    CORNERS.forEach((_, i) => setCorner(i, (after + BigInt(i + 1)) % 2n ** 63n));
  });
  $("save").addEventListener("click", saveStage);
  $("previous").addEventListener("click", () => showSeedsFrom(state.first - BigInt(SHEET)));
  $("next").addEventListener("click", () => showSeedsFrom(state.first + BigInt(SHEET)));
  $("random-seeds").addEventListener("click", () => showSeedsFrom(BigInt(Math.floor(Math.random() * 1_000_000_000))));
  $("first").addEventListener("change", () => readSeed($("first"), showSeedsFrom));
  moveTo(state.x, state.y);
  await Promise.all([drawGrid(), drawCorners(), drawSeeds()]);
  document.documentElement.dataset.ready = "";
}

/**
 * For tests and for the browser's console. `await cardigan.pixels([0, 1], { label: 3, truncation: 0.7, amounts: [1] })` returns the network's
 * output for seeds (numbers or text) as [seed, channel, row, column]; `cardigan.latents(seeds)` returns their latents;
 * `await cardigan.mixed(corners, x, y)` returns the output at a position between four seeds;
 * `await cardigan.redraws(grid, seconds)` returns the redraws per second while the ring moves. `?engine=javascript` and `?worker=no` after
 * the page's address turn off WebAssembly and the web worker.
 */
window.cardigan = {
  ready: start().catch(showError),
  engine: () => engine?.kind,
  latents: (seeds) => seeds.map((seed) => seedLatent(seed).z),
  async pixels(seeds, { label = SEED_LABEL, truncation = 1, amounts = [] } = {}) {
    await window.cardigan.ready;
    const points = seeds.map((seed) => seedPoint(seed, label));
    return engine.generate(...makeBatch(points, { truncation, amounts }));
  },
  async mixed(corners, x, y, label = SEED_LABEL) {
    await window.cardigan.ready;
    return engine.generate(...makeBatch([positionPoint([x, y], corners, label)], { truncation: 1, amounts: [] }));
  },
  async redraws(grid, seconds) {
    await window.cardigan.ready;
    const before = state.grid, begin_ = performance.now();
    state.grid = grid;
    await drawGrid();
    redraws = 0;
    const from = performance.now();
    for (let now = from; now - from < 1000 * seconds; now = performance.now()) {
      moveTo(0.5 + 0.4 * Math.sin((now - begin_) / 700), 0.5 + 0.4 * Math.cos((now - begin_) / 900));
      await drawGrid();
    }
    const each = redraws / ((performance.now() - from) / 1000);
    state.grid = before;
    await moveTo(0.5, 0.5);
    return each;
  },
};
}

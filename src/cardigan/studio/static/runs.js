// The table of all runs, and the comparison of up to four of them.
import { json, latestOnly, fetchImage } from "./api.js";
import { formatAge, selectField, integerField, h, notice, formatNumber, announce, formatCompact, slider, formatInteger, stopReasonText } from "./dom.js";
import { imageCanvas, gridSize, layoutOf, paint } from "./images.js";
import { reproduce } from "./reproduce.js";

const MAX_COMPARED = 4, PAGE_SIZE = 200;
const SEVERITY = { nothing_found: 0, too_early: 1, warning: 2, fatal: 3 };
const COLUMNS = [
  ["name", "Run", (run) => run.id.toLowerCase()], ["state", "State", (run) => run.state], ["recipe", "Recipe", (run) => run.recipe ?? ""],
  ["images", "Images", (run) => run.images_seen, "number"], ["speed", "Images / s", (run) => run.images_per_second, "number"],
  ["score", "Best score", (run) => run.best_score, "number"], ["health", "Health", (run) => SEVERITY[run.health] ?? 4], ["age", "Changed", (run) => -run.modified_at, "number"],
];
const link = (id, view) => `#/run/${id.split("/").map(encodeURIComponent).join("/")}/${view}`;
const searchText = (run) => [run.id, run.recipe, run.source, run.state.replaceAll("_", " "), run.health.replaceAll("_", " "), ...(run.fault_names ?? []), run.size].join(" ").toLowerCase();

export async function runs({ host, signal, state }) {
  let all = [], showAll = false;
  const chosen = new Set((state.get("chosen") ?? "").split(",").filter(Boolean));
  const rows = new Map();
  const filter = h("input", { id: "filter", type: "search", placeholder: "Filter: name, recipe, training, warning …", "aria-label": "Filter the runs", value: state.get("filter", "") });
  const count = h("p", { class: "count", role: "status" });
  const body = h("tbody");
  const heads = COLUMNS.map(([name, title, , kind]) => h("th", { scope: "col", class: kind ?? null, data: { name } }, h("button", { type: "button", on: { click: () => sortBy(name) } }, title)));
  const go = h("a", { class: "button", href: "#/compare" }, "Compare");
  const clear = h("button", { type: "button", class: "quiet", on: { click: () => (chosen.clear(), draw()) } }, "Clear");
  const selectedNames = h("span");
  const selection = h("div", { class: "selection", role: "region", "aria-label": "Selected runs", hidden: true }, selectedNames, go, clear);
  const more = h("button", { type: "button", hidden: true, on: { click: () => ((showAll = true), draw()) } });
  const table = h("table", { class: "runs-table" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Select to compare")), h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Newest samples")), heads)), body);
  const empty = h("div", { class: "empty", hidden: true });
  host.append(h("div", { class: "toolbar" }, h("h1", {}, "Runs"), count, filter), table, empty, more, selection);

  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => entry.isIntersecting && rows.get(entry.target.dataset.id)?.thumbnail()), { rootMargin: "200px" });
  signal.addEventListener("abort", () => seen.disconnect());

  function sortBy(name) {
    const down = state.get("sort", "age") === name && !state.get("down");
    state.set({ sort: name, down: down ? "1" : null });
    draw();
  }

  function draw() {
    const filterWords = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [sort, down] = [state.get("sort", "age"), Boolean(state.get("down"))];
    const key = (COLUMNS.find(([name]) => name === sort) ?? COLUMNS[7])[2];
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === y || (x == null && y == null)) return a.id < b.id ? -1 : 1;
      if (x == null) return 1;
      if (y == null) return -1;
      return (x < y ? -1 : 1) * (down ? -1 : 1);
    };
    const matching = all.filter((run) => filterWords.every((word) => searchText(run).includes(word))).sort(order);
    heads.forEach((head) => head.setAttribute("aria-sort", head.dataset.name !== sort ? "none" : down ? "descending" : "ascending"));
    const visible = showAll ? matching : matching.slice(0, PAGE_SIZE);
    for (const run of visible) if (!rows.has(run.id)) {
      rows.set(run.id, row(run));
      seen.observe(rows.get(run.id).element);
    }
    const wanted = visible.map((run) => (rows.get(run.id).update(run, chosen), rows.get(run.id).element));
    const focused = body.contains(document.activeElement) ? document.activeElement : null; // moving rows would lose the focus
    if (wanted.length !== body.children.length || wanted.some((element, index) => body.children[index] !== element)) body.replaceChildren(...wanted);
    if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
    more.hidden = matching.length <= visible.length;
    more.textContent = `Show all ${formatInteger(matching.length)}`;
    const training = all.filter((run) => run.state === "training").length;
    count.textContent = `${matching.length === all.length ? formatInteger(all.length) : `${formatInteger(matching.length)} of ${formatInteger(all.length)}`}${training ? `, ${training} training` : ""}`;
    table.hidden = !all.length;
    empty.hidden = Boolean(matching.length);
    selection.hidden = !chosen.size;
    go.href = `#/compare?runs=${[...chosen].map(encodeURIComponent).join(",")}`;
    go.textContent = chosen.size === 1 ? "Show 1 run at fixed latents" : `Compare ${chosen.size} runs`;
    selectedNames.textContent = [...chosen].join(", ");
    state.set({ chosen: [...chosen].join(",") });
  }

  function row(run) {
    const box = h("input", { type: "checkbox", "aria-label": `Select ${run.id} to compare`, disabled: run.state === "unreadable" });
    box.addEventListener("change", () => {
      if (box.checked && chosen.size >= MAX_COMPARED) {
        box.checked = false;
        announce(`At most ${MAX_COMPARED} runs can be compared`);
        count.textContent = `at most ${MAX_COMPARED} can be compared`;
        return;
      }
      chosen[box.checked ? "add" : "delete"](run.id);
      draw();
    });
    const canvas = imageCanvas(1, 1, `Newest samples of ${run.id}`);
    const cells = COLUMNS.map(([name, title, , kind]) => (name === "name" ? h("th", { scope: "row", data: { title } }) : h("td", { class: kind ?? null, data: { title } })));
    const element = h("tr", { data: { id: run.id } }, h("td", { class: "box" }, box), h("td", { class: "thumb" }, canvas), cells);
    let drawn = null, current = run, visible = false;
    const thumbnail = async () => {
      visible = true;
      if (current.latest_sheet === null || current.latest_sheet === undefined || drawn === current.latest_sheet) return;
      drawn = current.latest_sheet;
      try {
        const sheet = await fetchImage("/api/sample-sheet", { run: current.id, images_seen: current.latest_sheet }, signal);
        const [width, height] = current.size.split("x").map(Number);
        const columns = Math.round(((sheet.width - 8) / 2 + 2) / (width + 2)); // generated | divider of 8 | real, gaps of 2
        const some = Math.min(columns, width >= 128 ? 1 : 3);
        paint(canvas, sheet, 0, 0, some * (width + 2) - 2, Math.min(sheet.height, some * (height + 2) - 2));
        sheet.close();
      } catch { drawn = null; }
    };
    const update = (fresh) => {
      current = fresh;
      box.checked = chosen.has(fresh.id);
      const folder = fresh.id.includes("/") ? fresh.id.slice(0, fresh.id.lastIndexOf("/") + 1) : "";
      const name = fresh.state === "unreadable" ? fresh.id : h("a", { href: link(fresh.id, fresh.state === "model_file" ? "latent" : "live") }, h("span", { class: "folder" }, folder), fresh.name ?? fresh.id.slice(folder.length));
      const goal = fresh.images_goal ? h("progress", { max: fresh.images_goal, value: fresh.images_seen, "aria-label": `of ${formatInteger(fresh.images_goal)}` }) : "";
      updateCells(cells, [
        [name, h("small", {}, fresh.error ?? fresh.source?.split("/").slice(-2).join("/") ?? "")],
        [h("span", { class: `state ${fresh.state}` }, fresh.state.replaceAll("_", " ")), fresh.reason && fresh.state !== "training" ? h("small", {}, stopReasonText(fresh.reason)) : ""],
        [fresh.recipe ?? "–", h("small", {}, fresh.size.replaceAll("x", "×"))],
        [formatInteger(fresh.images_seen), fresh.state === "training" ? goal : ""], [formatNumber(fresh.images_per_second)],
        [formatNumber(fresh.best_score), fresh.best_score_images_seen ? h("small", {}, `at ${formatCompact(fresh.best_score_images_seen)}`) : ""],
        [h("span", { class: `health ${fresh.health}` }, fresh.health.replaceAll("_", " ")), h("small", {}, [...new Set(fresh.fault_names ?? [])].join(", "))],
        [fresh.modified_at ? formatAge(fresh.modified_at) : "–"],
      ]);
      if (visible) thumbnail();
    };
    return { element, update, thumbnail };
  }

  filter.addEventListener("input", () => (state.set({ filter: filter.value }), draw()));
  const read = async () => {
    const found = await json("/api/runs", {}, signal);
    all = found.runs;
    empty.replaceChildren(all.length ? notice("No run matches the filter.") : h("div", {}, h("h2", {}, "No runs here yet"), h("p", {}, "There are no runs in ", h("code", {}, found.folder), ". Start one, and it appears here:"), h("pre", { class: "code" }, "cardigan train mnist --minutes 2")));
    draw();
  };
  await read();
  const timer = setInterval(() => !document.hidden && read().catch((error) => error.name !== "AbortError" && (count.textContent = error.message)), 5000);
  signal.addEventListener("abort", () => clearInterval(timer));
}

/** Replace the content of cells whose text has changed, so that the others keep the focus. */
function updateCells(cells, contents) {
  cells.forEach((cell, index) => {
    const fresh = h("td", {}, contents[index]);
    if (fresh.textContent !== cell.textContent || !cell.childNodes.length) cell.replaceChildren(...fresh.childNodes);
  });
}

const IGNORED_SETTINGS = new Set(["images_seen"]);

/** Up to four runs at the same latents, and the differences of their settings. */
export async function compare({ host, signal, state }) {
  const ids = [...new Set((state.get("runs") ?? "").split(",").filter(Boolean))].slice(0, MAX_COMPARED);
  if (!ids.length) throw new Error("Select runs in the table first, then compare them.");
  const found = await Promise.all(ids.map((id) => json("/api/run", { run: id }, signal).catch((error) => ({ id, error: error.message }))));
  const names = found.find((run) => run.class_names?.length)?.class_names;
  const classes = Math.max(0, ...found.map((run) => run.classes ?? 0));
  const first = () => state.number("first", 0), count = () => state.number("count", 16);
  const sampling = () => ({ seeds: `${first()}-${first() + count() - 1}`, truncation: state.get("truncation"), label: state.get("label") });
  const columns = found.map((run) => {
    if (run.error) return { element: h("section", { class: "run-column" }, h("h2", {}, run.id), notice(run.error, "error")), draw: () => {} };
    const [width, height] = run.size.split("x").map(Number);
    const canvas = imageCanvas(...gridSize(layoutOf(count(), width, height)), `Images of ${run.id}`), trouble = h("p", { class: "notice error", hidden: true });
    const draw = latestOnly(async () => {
      const bitmap = await fetchImage("/api/seeds.png", { run: run.id, ...sampling(), label: run.classes ? sampling().label : null }, signal);
      trouble.hidden = true;
      paint(canvas, bitmap);
    }, (error) => ((trouble.textContent = error.message), (trouble.hidden = false)));
    const facts = [["images", formatInteger(run.images_seen)], ["best score", formatNumber(run.best_score)], ["images / s", formatNumber(run.images_per_second)], ["health", run.health.replaceAll("_", " ")]];
    return {
      draw,
      element: h("section", { class: "run-column" }, h("h2", {}, h("a", { href: link(run.id, "live") }, run.id)), h("div", { class: "image-frame" }, canvas), trouble,
        h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))), reproduce(run.id, () => ({ view: "seeds", ...sampling(), label: run.classes ? sampling().label : null }))),
    };
  });
  const redraw = (changes = {}) => (state.set(changes), columns.forEach((column) => column.draw()));
  const seed = integerField("First seed", first(), 0, 1e9, (value) => redraw({ first: value }));
  const step = (by) => {
    const value = Math.max(0, first() + by * count());
    seed.set(value);
    redraw({ first: value });
  };
  const runColumns = h("div", { class: "run-columns" }, columns.map((column) => column.element));
  runColumns.style.setProperty("--num-columns", columns.length);
  host.append(
    h("div", { class: "toolbar" }, h("h1", {}, "Compare"), h("p", { class: "count" }, "All runs use the same seeds: image 3 of every run has the same latent.")),
    h("div", { class: "controls" }, h("button", { type: "button", on: { click: () => step(-1) } }, "Previous seeds"), seed.element, h("button", { type: "button", on: { click: () => step(1) } }, "Next seeds"),
      selectField("Images", [[4, "4"], [9, "9"], [16, "16"], [36, "36"]], count(), (value) => redraw({ count: value })),
      classes ? selectField("Class", [["", "each seed's own"], ...Array.from({ length: classes }, (_, index) => [index, names?.[index] ?? String(index)])], state.get("label", ""), (value) => redraw({ label: value })) : null,
      slider({ label: "Truncation", min: 0, max: 1, step: 0.05, value: state.number("truncation", 1), onChange: (value) => redraw({ truncation: value === 1 ? null : value }) }).element),
    runColumns, differences(found));
  redraw();
}

function differences(found) {
  const readable = found.filter((run) => run.settings);
  if (readable.length < 2) return "";
  const names = Object.keys(Object.assign({}, ...readable.map((run) => run.settings))).filter((name) => !IGNORED_SETTINGS.has(name) && new Set(readable.map((run) => JSON.stringify(run.settings[name]))).size > 1);
  const shown = (value) => (value === undefined ? "–" : value === null ? "none" : typeof value === "string" ? value || "“”" : JSON.stringify(value));
  return h("section", { class: "block" }, h("h2", {}, "Differing settings"), names.length
    ? h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Differing settings" }, h("table", { class: "plain" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "setting"), readable.map((run) => h("th", { scope: "col" }, run.id)))),
      h("tbody", {}, names.map((name) => h("tr", {}, h("th", { scope: "row" }, name), readable.map((run) => h("td", {}, shown(run.settings[name]))))))))
    : notice("None: all runs have the same settings."));
}

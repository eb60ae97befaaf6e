// The table of all runs, as a tree of parents and children or as a list.
import { annotate, askToTrash } from "./annotations.js";
import { json, fetchImage } from "./api.js";
import { formatAge, h, healthText, notice, formatNumber, announce, formatCompact, formatInteger, segmented, stopReasonText } from "./dom.js";
import { imageCanvas, paint } from "./images.js";

export const MAX_COMPARED = 8;
const PAGE_SIZE = 200, MAX_DEPTH = 6;
const SEVERITY = { nothing_found: 0, too_early: 1, warning: 2, fatal: 3 };
const COLUMNS = [
  ["name", "Run", (run) => (run.title || run.id).toLowerCase()], ["state", "State", (run) => run.state], ["recipe", "Recipe", (run) => run.recipe ?? ""],
  ["images", "Images", (run) => run.images_seen, "number"], ["speed", "Images / s", (run) => run.images_per_second, "number"],
  ["score", "Best score", (run) => run.best_score, "number"], ["health", "Health", (run) => SEVERITY[run.health] ?? 4], ["age", "Changed", (run) => -run.modified_at, "number"],
];
const link = (id, view) => `#/run/${id.split("/").map(encodeURIComponent).join("/")}/${view}`;
const searchText = (run) => [run.id, run.recipe, run.source, run.state.replaceAll("_", " "), run.health.replaceAll("_", " "), healthText(run.health), ...(run.fault_names ?? []), run.size, run.title, run.note, run.starred ? "starred" : ""].join(" ").toLowerCase();

/** Rank of every kind of score: kinds of more runs come first. Scores of different kinds are not sorted together. */
function scoreKindRanks(all) {
  const counts = new Map();
  for (const run of all) if (run.best_score !== null) counts.set(run.score_kind, (counts.get(run.score_kind) ?? 0) + 1);
  return new Map([...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([kind], rank) => [kind, rank]));
}

/** Runs with their depth, every child below its parent. A family stands where its first member stands in the given order. */
export function asTree(runs) {
  const byId = new Map(runs.map((run) => [run.id, run])), children = new Map();
  const isRoot = (run) => !byId.has(run.parent);
  for (const run of runs) if (!isRoot(run)) children.set(run.parent, [...(children.get(run.parent) ?? []), run]);
  const rootOf = (run) => {
    for (const seen = new Set(); !isRoot(run) && !seen.has(run.id); run = byId.get(run.parent)) seen.add(run.id);
    return run;
  };
  const placed = new Set(), rows = [];
  const place = (run, depth) => {
    if (placed.has(run.id)) return;
    placed.add(run.id);
    rows.push({ run, depth });
    for (const child of children.get(run.id) ?? []) place(child, depth + 1);
  };
  for (const run of runs) place(rootOf(run), 0);
  return rows;
}

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
  const trash = h("button", { type: "button", class: "quiet", on: { click: () => askToTrash([...chosen], (id) => (chosen.delete(id), read())) } }, "Delete …");
  const selection = h("div", { class: "selection", role: "region", "aria-label": "Selected runs", hidden: true }, selectedNames, go, trash, clear);
  const layout = h("span", { hidden: true });
  const more = h("button", { type: "button", hidden: true, on: { click: () => ((showAll = true), draw()) } });
  const table = h("table", { class: "runs-table" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Select to compare")), h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "Newest samples")), heads)), body);
  const empty = h("div", { class: "empty", hidden: true });
  host.append(h("div", { class: "toolbar" }, h("h1", {}, "Runs"), count, layout, filter), table, empty, more, selection);

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
    const ranks = scoreKindRanks(all), best = new Map();
    for (const run of all) if (run.best_score !== null && !(best.get(run.score_kind)?.best_score <= run.best_score)) best.set(run.score_kind, run);
    const order = (a, b) => {
      if (a.starred !== b.starred) return a.starred ? -1 : 1;
      if (sort === "score" && a.best_score !== null && b.best_score !== null && a.score_kind !== b.score_kind) return ranks.get(a.score_kind) - ranks.get(b.score_kind);
      const [x, y] = [key(a), key(b)];
      if (x === y || (x == null && y == null)) return a.id < b.id ? -1 : 1;
      if (x == null) return 1;
      if (y == null) return -1;
      return (x < y ? -1 : 1) * (down ? -1 : 1);
    };
    const matching = all.filter((run) => filterWords.every((word) => searchText(run).includes(word))).sort(order);
    heads.forEach((head) => head.setAttribute("aria-sort", head.dataset.name !== sort ? "none" : down ? "descending" : "ascending"));
    const hasFamilies = all.some((run) => run.parent);
    if (hasFamilies && layout.hidden) layout.replaceChildren(segmented("Order", [["", "As a tree"], ["1", "As a list"]], state.get("list", ""), (value) => (state.set({ list: value }), draw())));
    layout.hidden = !hasFamilies;
    const placed = state.get("list") ? matching.map((run) => ({ run, depth: 0 })) : asTree(matching);
    const visible = showAll ? placed : placed.slice(0, PAGE_SIZE);
    for (const { run } of visible) if (!rows.has(run.id)) {
      rows.set(run.id, row(run));
      seen.observe(rows.get(run.id).element);
    }
    const wanted = visible.map(({ run, depth }) => (rows.get(run.id).update(run, { depth, showKind: ranks.size > 1, isBest: best.get(run.score_kind) === run }), rows.get(run.id).element));
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
    const one = chosen.size === 1 ? all.find((run) => run.id === [...chosen][0]) : null;
    go.textContent = one ? (one.parent ? "Compare with its parent" : "Show 1 run") : `Compare ${chosen.size} runs`;
    if (one?.parent) go.href = `#/compare?runs=${[one.parent, one.id].map(encodeURIComponent).join(",")}`;
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
    const star = h("button", { type: "button", class: "star", on: { click: async () => {
      try {
        const found = await annotate(current, { starred: !current.starred });
        all.filter((each) => each.id === current.id).forEach((each) => Object.assign(each, found));
        draw();
        announce(found.starred ? "Starred" : "Star removed");
      } catch (error) { count.textContent = error.message; }
    } } });
    const canvas = imageCanvas(1, 1, `Newest samples of ${run.id}`);
    const cells = COLUMNS.map(([name, title, , kind]) => (name === "name" ? h("th", { scope: "row", data: { title } }) : h("td", { class: kind ?? null, data: { title } })));
    const element = h("tr", { data: { id: run.id } }, h("td", { class: "box" }, box, star), h("td", { class: "thumb" }, canvas), cells);
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
    const update = (fresh, { depth, showKind, isBest }) => {
      current = fresh;
      star.hidden = ["unreadable", "model_file"].includes(fresh.state);
      star.textContent = fresh.starred ? "★" : "☆";
      star.setAttribute("aria-pressed", String(fresh.starred));
      star.setAttribute("aria-label", `Star ${fresh.id}`);
      element.style.setProperty("--depth", Math.min(depth, MAX_DEPTH));
      element.classList.toggle("child", depth > 0);
      box.checked = chosen.has(fresh.id);
      const folder = fresh.id.includes("/") ? fresh.id.slice(0, fresh.id.lastIndexOf("/") + 1) : "";
      const name = fresh.state === "unreadable" ? fresh.id : h("a", { href: link(fresh.id, fresh.state === "model_file" ? "latent" : "live") }, fresh.title ? fresh.title : [h("span", { class: "folder" }, folder), fresh.name ?? fresh.id.slice(folder.length)]);
      const lines = [fresh.title ? fresh.id : "", fresh.error ?? fresh.source?.split("/").slice(-2).join("/") ?? "", fresh.started_from ? `from ${fresh.started_from.model}` : ""].filter(Boolean);
      const goal = fresh.images_goal ? h("progress", { max: fresh.images_goal, value: fresh.images_seen, "aria-label": `of ${formatInteger(fresh.images_goal)}` }) : "";
      updateCells(cells, [
        [name, h("small", {}, lines.join(" · ")), fresh.note ? h("small", { class: "note", title: fresh.note }, fresh.note) : ""],
        [h("span", { class: `state ${fresh.state}` }, fresh.state.replaceAll("_", " ")), fresh.reason && fresh.state !== "training" ? h("small", {}, stopReasonText(fresh.reason)) : ""],
        [fresh.recipe ?? "–", h("small", {}, fresh.size.replaceAll("x", "×"))],
        [formatInteger(fresh.images_seen), fresh.state === "training" ? goal : ""], [formatNumber(fresh.images_per_second)],
        [isBest ? h("b", {}, formatNumber(fresh.best_score)) : formatNumber(fresh.best_score), fresh.best_score_images_seen ? h("small", {}, `at ${formatCompact(fresh.best_score_images_seen)}${isBest ? ", the best" : ""}`) : "", showKind && fresh.best_score !== null ? h("small", {}, `to ${fresh.score_kind}`) : ""],
        [h("span", { class: `health ${fresh.health}` }, healthText(fresh.health)), h("small", {}, [...new Set(fresh.fault_names ?? [])].join(", "))],
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

// Shows the view that the URL's fragment (after #) names. The fragment holds all state of the page.
import { address, followEvents, json, latestOnly } from "./api.js";
import { formatDuration, h, notice, formatNumber, announce, formatCompact, isTyping, formatInteger } from "./dom.js";
import { runs } from "./runs.js";

const VIEWS = {
  live: ["Live", () => import("./live.js")],
  history: ["History", () => import("./history.js")],
  discriminator: ["Discriminator", () => import("./discriminator.js")],
  latent: ["Latent space", () => import("./latent_space.js")],
  details: ["Details", () => import("./details.js")],
};
const KEYS = [
  ["1 2 3 4 5", "Live, History, Discriminator, Latent space, Details"], ["r", "all runs"], ["/", "filter the runs"], ["t", "light or dark"], ["?", "this list"],
  ["← →", "History, Discriminator: previous or next sheet; on a chart: previous or next point; on the interpolation pad: move (Shift: further)"],
  ["Home End", "first or last sheet"], ["Space", "History: play or pause; on an image: select it"], ["+ −", "on a chart: zoom in or out at the point"], ["Esc", "on a chart: show the whole range"],
];

const LOADING_DELAY = 250;
const main = document.getElementById("main");
const tabs = document.getElementById("tabs");
let page = new AbortController();

/** Split `#/run/a/b/live?x=1` into view, run id and parameters. A run id may contain slashes: the view is the last part. */
function parseHash() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const parts = path.split("/").map(decodePart);
  const parameters = Object.fromEntries(new URLSearchParams(query));
  if (parts[0] === "run" && parts.length > 2 && parts.at(-1) in VIEWS) return { view: parts.at(-1), id: parts.slice(1, -1).join("/"), parameters };
  if (parts[0] === "run" && parts.length > 1) return { view: "live", id: parts.slice(1).join("/"), parameters };
  return { view: parts[0] === "compare" ? "compare" : "runs", id: null, parameters };
}

/** Decode a part of the URL. Return it unchanged if it is not validly encoded. */
function decodePart(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const link = (id, view, parameters = {}) => address(`#/run/${id.split("/").map(encodeURIComponent).join("/")}/${view}`, parameters);

/** The parameters of the current view, as an object that writes changes to the URL. */
function urlState(parameters) {
  let timer = 0;
  const path = location.hash.split("?")[0] || "#/runs";
  const write = () => history.replaceState(null, "", address(path, parameters));
  page.signal.addEventListener("abort", () => clearTimeout(timer));
  return {
    get: (name, defaultValue) => parameters[name] ?? defaultValue,
    number: (name, defaultValue) => (parameters[name] !== undefined && Number.isFinite(Number(parameters[name])) ? Number(parameters[name]) : defaultValue),
    /** Change parameters; null or "" removes one. The URL is written at most five times a second, because browsers limit it. */
    set(changes) {
      for (const [name, value] of Object.entries(changes)) {
        if (value === null || value === undefined || value === "") delete parameters[name];
        else parameters[name] = String(value);
      }
      clearTimeout(timer);
      timer = setTimeout(write, 200);
    },
  };
}

async function show() {
  const route = parseHash();
  page.abort();
  page = new AbortController();
  const { signal } = page;
  tabs.replaceChildren();
  const host = h("div", { class: `view ${route.view}` });
  const context = { host, signal, state: urlState(route.parameters), link };
  try {
    if (route.id === null) {
      document.title = route.view === "compare" ? "Compare · Cardigan studio" : "Runs · Cardigan studio";
      main.replaceChildren(host);
      await (route.view === "compare" ? (await import("./compare.js")).compare : runs)(context);
    } else await showRun(route, context);
  } catch (error) {
    if (!signal.aborted) host.replaceChildren(notice(error.message, "error"), h("p", {}, h("a", { href: "#/runs" }, "All runs")));
    if (!signal.aborted && !host.isConnected) main.replaceChildren(host);
  }
  main.dataset.ready = signal.aborted ? main.dataset.ready : `${route.view}:${route.id ?? ""}`;
}

async function showRun(route, context) {
  const { id, view } = route;
  document.title = `${VIEWS[view][0]} · ${id} · Cardigan studio`;
  tabs.replaceChildren(...Object.entries(VIEWS).map(([name, [title]]) => h("a", { href: link(id, name), "aria-current": name === view ? "page" : null }, title)));
  delete main.dataset.ready;
  const waiting = setTimeout(() => main.replaceChildren(notice("Loading the run …")), LOADING_DELAY);
  const [run, { mount }] = await Promise.all([json("/api/run", { run: id }, context.signal), VIEWS[view][1]()]).finally(() => clearTimeout(waiting));
  if (context.signal.aborted) return;
  if (run.state === "model_file") {
    if (view !== "latent") return location.replace(link(id, "latent")); // a model file has no training to show
    tabs.replaceChildren(tabs.querySelector("[aria-current]"));
  }
  main.toggleAttribute("data-alpha", run.size.endsWith("x4"));
  const events = new EventTarget();
  const head = runHeader(run);
  main.replaceChildren(head.element, context.host);
  if (run.state !== "model_file") followEvents(id, run.offset, (kind, line) => {
    if (kind === "progress") Object.assign(run, { images_seen: line.images_seen, elapsed_seconds: line.elapsed_seconds, images_per_second: line.images_per_second ?? run.images_per_second });
    if (kind === "samples" && !run.sheets.includes(line.images_seen)) run.sheets.push(line.images_seen);
    if (kind === "deleted") head.showError("This run's folder was deleted. The page shows what was read before.");
    head.update(run);
    events.dispatchEvent(new CustomEvent(kind, { detail: line }));
    if (["checkpoint", "fault", "stop", "resume", "rollback", "start"].includes(kind)) refresh();
  }, head.connection, context.signal);
  const refresh = latestOnly(async () => { // hundreds of events arrive at once after a long time in the background
    const { sheets, ...facts } = await json("/api/run", { run: id }, context.signal);
    run.sheets.splice(0, run.sheets.length, ...sheets); // in place: views hold references to the list
    Object.assign(run, facts);
    head.update(run);
    events.dispatchEvent(new CustomEvent("run", { detail: run }));
  }, () => null); // errors are reported by the run's events
  events.addEventListener("run", () => head.update(run), { signal: context.signal });
  await mount({ ...context, id, run, events });
}

const STATES = { training: "training", finished: "finished", stopped: "stopped", interrupted: "interrupted", unreadable: "unreadable", model_file: "model file", waiting: "waiting for its first step" };
export const stateBadge = (state) => h("span", { class: `state ${state}` }, STATES[state] ?? state);

/** The run's name, state and current numbers. */
function runHeader(run) {
  const fields = [
    ["images", (each) => formatInteger(each.images_seen), (each) => (each.images_goal ? `of ${formatInteger(each.images_goal)}` : "")],
    ["images / s", (each) => formatNumber(each.images_per_second), () => ""],
    ["time", (each) => formatDuration(each.elapsed_seconds), (each) => (each.minutes_goal ? `of ${each.minutes_goal} min` : "")],
    ["best score", (each) => formatNumber(each.best_score), (each) => (each.best_score_images_seen ? `at ${formatCompact(each.best_score_images_seen)} images` : "")],
    ["latest score", (each) => formatNumber(each.latest_score), (each) => (each.latest_score === null ? "" : "lower is better")],
    ["image size", (each) => each.size.replaceAll("x", "×"), (each) => (each.conditional ? "conditional" : "")],
  ];
  const cells = fields.map(([name]) => {
    const value = h("b"), rest = h("small");
    return { value, rest, element: h("div", {}, h("dt", {}, name), h("dd", {}, value, " ", rest)) };
  });
  const heading = h("h1"), folder = h("span", { class: "count" }), mark = h("span"), connection = h("span", { class: "connection" }), warning = h("p", { class: "notice error", role: "alert", hidden: true });
  const element = h("section", { class: "heading", "aria-label": "Run" },
    h("div", { class: "title" }, h("p", { class: "crumb" }, h("a", { href: "#/runs" }, "Runs")), heading, folder, mark, connection, h("span", { class: "recipe" }, [run.recipe && `recipe ${run.recipe}`, run.source && `data ${run.source.split("/").slice(-2).join("/")}`].filter(Boolean).join(" · "))),
    warning, h("dl", { class: "readings" }, cells.map((cell) => cell.element)));
  const update = (current) => {
    heading.textContent = `${current.starred ? "★ " : ""}${current.title || current.id}`;
    folder.textContent = current.title ? current.id : "";
    mark.replaceChildren(stateBadge(current.state));
    fields.forEach(([, value, rest], index) => {
      cells[index].value.textContent = value(current);
      cells[index].rest.textContent = rest(current);
    });
  };
  update(run);
  const connectionTexts = { live: "", lost: "connection lost, reconnecting", paused: "" };
  return {
    element, update,
    showError: (message) => ((warning.textContent = message), (warning.hidden = false)),
    connection: (state) => ((connection.textContent = connectionTexts[state]), (connection.dataset.state = state)),
  };
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = document.getElementById("theme");
const currentTheme = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");

function labelThemeButton() {
  theme.textContent = currentTheme() === "dark" ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Switch to the ${theme.textContent.toLowerCase()} theme`);
}

function switchTheme() {
  document.documentElement.dataset.theme = currentTheme() === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("theme", currentTheme());
  } catch { /* storage is blocked: the theme lasts until the page is closed */ }
  labelThemeButton();
  document.dispatchEvent(new Event("theme"));
}

function help() {
  const dialog = document.getElementById("help");
  const close = h("button", { type: "button", class: "quiet", on: { click: () => dialog.close() } }, "Close");
  dialog.replaceChildren(h("header", {}, h("h2", { id: "help-title" }, "Keys"), close), h("dl", { class: "keys" }, KEYS.map(([keys, words]) => [h("dt", {}, keys.split(" ").map((key) => h("kbd", {}, key))), h("dd", {}, words)])));
  if (!dialog.open) dialog.showModal();
}

document.addEventListener("keydown", (event) => {
  if (isTyping(event) && !(event.key === "?" && event.target === document.body)) return;
  const route = parseHash();
  if (event.key === "?") help();
  else if (event.key === "t") switchTheme();
  else if (event.key === "r") location.hash = "#/runs";
  else if (event.key === "/" && route.view === "runs") document.querySelector("#filter")?.focus();
  else if (route.id !== null && /^[1-5]$/.test(event.key)) location.hash = link(route.id, Object.keys(VIEWS)[Number(event.key) - 1]);
  else return;
  event.preventDefault();
});
theme.addEventListener("click", switchTheme);
document.getElementById("keys").addEventListener("click", help);
document.querySelector(".skip").addEventListener("click", (event) => (event.preventDefault(), main.focus()));
dark.addEventListener("change", () => (labelThemeButton(), document.dispatchEvent(new Event("theme"))));
addEventListener("hashchange", async () => {
  scrollTo(0, 0);
  await show();
  announce(document.title);
});
labelThemeButton();
if (!location.hash) history.replaceState(null, "", "#/runs");
show();

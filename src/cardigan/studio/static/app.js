// Which view stands on the page: the address after # says so, and nothing else remembers it.
import { address, followEvents, json, latestOnly } from "./api.js";
import { formatDuration, h, notice, formatNumber, announce, formatCompact, isTyping, formatInteger } from "./dom.js";
import { compare, runs } from "./runs.js";

const VIEWS = {
  live: ["Live", () => import("./live.js")],
  history: ["History", () => import("./history.js")],
  discriminator: ["Discriminator", () => import("./discriminator.js")],
  latent: ["Latent space", () => import("./latent_space.js")],
};
const KEYS = [
  ["1 2 3 4", "Live, History, Discriminator, Latent space"], ["r", "all runs"], ["/", "filter the runs"], ["t", "light or dark"], ["?", "this list"],
  ["← →", "History, Discriminator: one checkpoint back or on; on a chart: along its points; on the pad: move (Shift: further)"],
  ["Home End", "first or last moment"], ["Space", "History: play or pause; on a picture: pick it"], ["+ −", "on a chart: zoom around the point"], ["Esc", "on a chart: the whole range again"],
];

const main = document.getElementById("main");
const tabs = document.getElementById("tabs");
let page = new AbortController();
let shown = { route: null, frame: null };

/** Split `#/run/a/b/live?x=1` into the place's parts and its parameters. Run names may hold slashes: the view is the last part. */
function parseHash() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const parts = path.split("/").map(decoded);
  const parameters = Object.fromEntries(new URLSearchParams(query));
  if (parts[0] === "run" && parts.length > 2 && parts.at(-1) in VIEWS) return { view: parts.at(-1), id: parts.slice(1, -1).join("/"), parameters };
  if (parts[0] === "run" && parts.length > 1) return { view: "live", id: parts.slice(1).join("/"), parameters };
  return { view: parts[0] === "compare" ? "compare" : "runs", id: null, parameters };
}

/** A part of the address as it was meant; as it stands where it is no encoding. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const link = (id, view, parameters = {}) => address(`#/run/${id.split("/").map(encodeURIComponent).join("/")}/${view}`, parameters);

/** The parameters of the view that stands on the page, as one object that writes itself into the address. */
function urlState(parameters) {
  let timer = 0;
  const path = location.hash.split("?")[0] || "#/runs";
  const write = () => history.replaceState(null, "", address(path, parameters));
  page.signal.addEventListener("abort", () => clearTimeout(timer));
  return {
    get: (name, otherwise) => parameters[name] ?? otherwise,
    number: (name, otherwise) => (parameters[name] !== undefined && Number.isFinite(Number(parameters[name])) ? Number(parameters[name]) : otherwise),
    /** Change some; a value equal to null or "" is forgotten. Written at most five times a second, since browsers limit it. */
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
      await (route.view === "compare" ? compare : runs)(context);
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
  tabs.replaceChildren(...Object.entries(VIEWS).map(([name, [words]]) => h("a", { href: link(id, name), "aria-current": name === view ? "page" : null }, words)));
  delete main.dataset.ready;
  const [run, { mount }] = await Promise.all([json("/api/run", { run: id }, context.signal), VIEWS[view][1]()]);
  if (context.signal.aborted) return;
  if (run.state === "model_file") {
    if (view !== "latent") return location.replace(link(id, "latent")); // there is no training to look at
    tabs.replaceChildren(tabs.lastElementChild);
  }
  main.toggleAttribute("data-alpha", run.size.endsWith("x4"));
  const events = new EventTarget();
  const head = runHeader(run);
  main.replaceChildren(head.element, context.host);
  if (run.state !== "model_file") followEvents(id, run.offset, (kind, line) => {
    if (kind === "progress") Object.assign(run, { images_seen: line.images_seen, elapsed_seconds: line.elapsed_seconds, images_per_second: line.images_per_second ?? run.images_per_second });
    if (kind === "samples" && !run.sheets.includes(line.images_seen)) run.sheets.push(line.images_seen);
    if (kind === "deleted") head.showError("This run's folder was deleted while you were looking: what is shown is what was read before.");
    head.update(run);
    events.dispatchEvent(new CustomEvent(kind, { detail: line }));
    if (["checkpoint", "fault", "stop", "resume", "rollback", "start"].includes(kind)) refresh();
  }, head.connection, context.signal);
  const refresh = latestOnly(async () => { // after a night in the background hundreds of events come at once
    const { sheets, ...facts } = await json("/api/run", { run: id }, context.signal);
    run.sheets.splice(0, run.sheets.length, ...sheets); // views hold on to the list
    Object.assign(run, facts);
    head.update(run);
    events.dispatchEvent(new CustomEvent("run", { detail: run }));
  }, () => null); // the run's own events say what is wrong
  await mount({ ...context, id, run, events });
}

const STATES = { training: "training", finished: "finished", stopped: "stopped", interrupted: "interrupted", unreadable: "unreadable", model_file: "a model alone", waiting: "waiting for its first step" };
export const stateBadge = (state) => h("span", { class: `state ${state}` }, STATES[state] ?? state);

/** The run's name and its readings, which keep their places while the numbers change. */
function runHeader(run) {
  const fields = [
    ["images", (each) => formatInteger(each.images_seen), (each) => (each.images_goal ? `of ${formatInteger(each.images_goal)}` : each.minutes_goal ? `of ${each.minutes_goal} min` : "")],
    ["images / s", (each) => formatNumber(each.images_per_second), () => ""],
    ["time", (each) => formatDuration(each.elapsed_seconds), () => ""],
    ["best score", (each) => formatNumber(each.best_score), (each) => (each.best_score_images_seen ? `at ${formatCompact(each.best_score_images_seen)}` : "")],
    ["last score", (each) => formatNumber(each.latest_score), () => ""],
    ["pictures", (each) => each.size.replaceAll("x", "×"), (each) => (each.conditional ? "by class" : "")],
  ];
  const cells = fields.map(([name]) => {
    const value = h("b"), rest = h("small");
    return { value, rest, element: h("div", {}, h("dt", {}, name), h("dd", {}, value, " ", rest)) };
  });
  const mark = h("span"), connection = h("span", { class: "connection" }), warning = h("p", { class: "notice error", role: "alert", hidden: true });
  const element = h("section", { class: "heading", "aria-label": "Run" },
    h("div", { class: "title" }, h("p", { class: "crumb" }, h("a", { href: "#/runs" }, "Runs")), h("h1", {}, run.id), mark, connection, h("span", { class: "recipe" }, [run.recipe, run.source?.split("/").slice(-2).join("/")].filter(Boolean).join(" · "))),
    warning, h("dl", { class: "readings" }, cells.map((cell) => cell.element)));
  const update = (now) => {
    mark.replaceChildren(stateBadge(now.state));
    fields.forEach(([, value, rest], index) => {
      cells[index].value.textContent = value(now);
      cells[index].rest.textContent = rest(now);
    });
  };
  update(run);
  const words = { live: "", lost: "connection lost, trying again", paused: "" };
  return {
    element, update,
    showError: (sentence) => ((warning.textContent = sentence), (warning.hidden = false)),
    connection: (state) => ((connection.textContent = words[state]), (connection.dataset.state = state)),
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
  } catch { /* it then holds until the page is closed */ }
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
  else if (route.id !== null && /^[1-4]$/.test(event.key)) location.hash = link(route.id, Object.keys(VIEWS)[Number(event.key) - 1]);
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

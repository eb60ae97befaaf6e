// How a run was made: name and note, command, evaluation, settings, environment.
import { annotationForm, askToTrash } from "./annotations.js";
import { address, json } from "./api.js";
import { announce, formatInteger, formatNumber, h, notice } from "./dom.js";

/** Settings by the part of the training that they belong to: the text before the dot. */
const GENERAL = "general";
const link = (id, view) => `#/run/${id.split("/").map(encodeURIComponent).join("/")}/${view}`;

export async function mount({ host, signal, state, id, run, events }) {
  const family = h("p", { class: "count" });
  const about = h("section", { class: "block first" }, h("h2", {}, "About this run"), annotationForm(run, (saved) => (Object.assign(run, saved), events.dispatchEvent(new CustomEvent("run", { detail: run })))), family,
    h("div", { class: "row" }, h("button", { type: "button", class: "danger", on: { click: () => askToTrash([id], () => (location.hash = "#/runs")) } }, "Delete this run …")));
  const commands = h("section", { class: "block" }, h("h2", {}, "Commands"),
    run.command ? codeBlock("This command started the run", run.command) : notice("The command that started this run is not known."),
    run.resume_command ? codeBlock("This command continues it", run.resume_command) : null);
  host.append(h("h2", { class: "visually-hidden" }, "Details"), h("div", { class: "details-columns" }, h("div", {}, about, commands), h("div", {}, evaluation(run), settings(run, state), environment(run))));
  const table = await json("/api/runs", {}, signal);
  const parent = table.runs.find((each) => each.id === table.runs.find((own) => own.id === id)?.parent), children = table.runs.filter((each) => each.parent === id);
  const name = (each) => h("a", { href: link(each.id, "details") }, each.title || each.id);
  family.replaceChildren(...[
    run.started_from && ["Started from ", parent ? name(parent) : run.started_from.model, ` after ${formatInteger(run.started_from.images_seen)} images. `],
    children.length ? ["Runs that started from it: ", ...children.flatMap((each, index) => [index ? ", " : "", name(each)]), ". "] : null,
    parent || children.length ? h("a", { href: `#/compare?runs=${[parent?.id, id, ...children.map((each) => each.id)].filter(Boolean).slice(0, 8).map(encodeURIComponent).join(",")}` }, "Compare them") : null,
  ].filter(Boolean).flat());
}

function codeBlock(title, text) {
  const button = h("button", { type: "button", class: "small", on: { click: async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(box); // the clipboard needs https or localhost
      button.textContent = "Press Ctrl-C to copy";
    }
    announce(button.textContent);
    setTimeout(() => (button.textContent = "Copy"), 1800);
  } } }, "Copy");
  const box = h("pre", { class: "code" }, text);
  return h("div", { class: "command" }, h("div", { class: "row" }, h("h3", {}, title), h("span", { class: "push" }), button), box);
}

function evaluation(run) {
  const report = run.has_report ? h("a", { class: "button", href: address("/api/report", { run: run.id }), target: "_blank", rel: "noopener" }, "Open the report") : null;
  const section = (...content) => h("section", { class: "block first" }, h("div", { class: "controls" }, h("h2", {}, "Evaluation"), h("span", { class: "push" }), report), content);
  const found = run.evaluation;
  if (!found?.metrics.length) return section(notice(found?.protocol || "This run has not been evaluated. Evaluate it with this command:"), found?.protocol ? null : h("pre", { class: "code" }, `cardigan report ${run.id}`));
  const withError = (value, error) => (typeof value !== "number" ? "–" : typeof error === "number" && error > 1e-9 * Math.abs(value) ? `${formatNumber(value)} ± ${formatNumber(Number(error.toPrecision(2)))}` : formatNumber(value));
  return section(h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Evaluation" }, h("table", { class: "plain numbers" }, h("thead", {}, h("tr", {}, ["metric", "this run", "real images", "samples"].map((words) => h("th", { scope: "col" }, words)))),
    h("tbody", {}, found.metrics.map((metric) => h("tr", {}, h("th", { scope: "row" }, metric.key), h("td", {}, withError(metric.value, metric.standard_error)), h("td", {}, withError(metric.real_baseline, metric.real_baseline_error)), h("td", {}, formatInteger(metric.num_samples))))))),
  h("p", { class: "count" }, `After ${formatInteger(found.images_seen)} images. ${found.protocol ?? ""}`));
}

function settings(run, state) {
  const groups = new Map();
  for (const [name, value] of Object.entries(run.settings)) {
    const [group, rest] = name.includes(".") ? [name.slice(0, name.indexOf(".")), name.slice(name.indexOf(".") + 1)] : [GENERAL, name];
    groups.set(group, [...(groups.get(group) ?? []), [rest, value]]);
  }
  const shown = (value) => (value === null || value === "" ? "none" : typeof value === "string" ? value : JSON.stringify(value));
  const folds = [...groups].map(([group, rows]) => h("details", { open: group === GENERAL }, h("summary", {}, group.replaceAll("_", " "), h("small", {}, ` ${rows.length}`)),
    h("table", { class: "plain" }, h("tbody", {}, rows.map(([name, value]) => h("tr", { data: { name: `${group}.${name}`.toLowerCase() } }, h("th", { scope: "row" }, name), h("td", {}, shown(value))))))));
  const none = notice("No setting matches.");
  const apply = (text) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    let matches = 0;
    for (const fold of folds) {
      const rows = [...fold.querySelectorAll("tr")];
      for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word) || row.dataset.name.includes(word));
      const here = rows.filter((row) => !row.hidden).length;
      matches += here;
      fold.hidden = !here;
      if (words.length) fold.open = true;
    }
    none.hidden = matches > 0;
  };
  const filter = h("input", { type: "search", placeholder: "Filter the settings", "aria-label": "Filter the settings", value: state.get("setting", ""), on: { input: () => (state.set({ setting: filter.value }), apply(filter.value)) } });
  apply(filter.value);
  return h("section", { class: "block" }, h("div", { class: "controls" }, h("h2", {}, "Settings"), h("span", { class: "push" }), filter), none, h("div", {}, folds));
}

function environment(run) {
  const rows = Object.entries(run.environment ?? {}).filter(([, value]) => value && value !== "{}" && value !== "null");
  if (!rows.length) return "";
  return h("section", { class: "block" }, h("details", {}, h("summary", {}, "Environment", h("small", {}, " versions, machine, commit")), h("table", { class: "plain" }, h("tbody", {}, rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name.replaceAll("_", " ")), h("td", {}, value)))))));
}

// Name, star and note of a run, and moving runs to the trash.
import { json, post } from "./api.js";
import { announce, h } from "./dom.js";

const MAX_TITLE = 80, MAX_NOTE = 4000;

/** Save changes of a run's name, star or note. Returns all three as saved. */
export async function annotate(run, changes) {
  const { title, starred, note } = { title: "", starred: false, note: "", ...run, ...changes };
  return post("/api/annotate", { run: run.id }, { title, starred, note });
}

/** A form for the name, star and note of a run. `onSaved(annotations)` is called after each change. */
export function annotationForm(run, onSaved) {
  const title = h("input", { type: "text", maxlength: MAX_TITLE, value: run.title, placeholder: run.name });
  const note = h("textarea", { rows: 4, maxlength: MAX_NOTE, value: run.note, placeholder: "What did you try, and what did you find?" });
  const starred = h("input", { type: "checkbox", checked: run.starred });
  const status = h("span", { class: "count", role: "status" });
  const save = h("button", { type: "submit" }, "Save");
  const form = h("form", { class: "annotations" }, h("label", { class: "field" }, h("span", {}, "Name"), title), h("label", { class: "field" }, h("span", {}, "Note"), note),
    h("div", { class: "row" }, h("label", { class: "field" }, starred, h("span", {}, "Starred: first in the table of runs")), h("span", { class: "push" }), status, save));
  const send = async (event) => {
    event?.preventDefault();
    try {
      onSaved(await annotate(run, { title: title.value, note: note.value, starred: starred.checked }));
      status.textContent = "Saved";
      announce("Saved");
    } catch (error) {
      status.textContent = error.message;
    }
  };
  form.addEventListener("submit", send);
  starred.addEventListener("change", () => send());
  form.addEventListener("input", () => (status.textContent = ""));
  return form;
}

/** Ask before runs are moved to the trash. `onMoved(id)` is called for each moved run. */
export async function askToTrash(ids, onMoved) {
  const { folder } = await json("/api/runs");
  const error = h("p", { class: "notice error", role: "alert", hidden: true });
  const confirm = h("button", { type: "button", class: "primary danger" }, ids.length === 1 ? "Delete the run" : `Delete ${ids.length} runs`);
  const cancel = h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel");
  const dialog = h("dialog", { "aria-labelledby": "trash-title" }, h("h2", { id: "trash-title" }, ids.length === 1 ? "Delete this run?" : `Delete these ${ids.length} runs?`),
    h("ul", { class: "names" }, ids.map((id) => h("li", {}, id))),
    h("p", {}, `The studio moves the ${ids.length === 1 ? "folder" : "folders"} to `, h("code", {}, `${folder}/.trash`), ". To restore a run, move its folder back. To free the disk space, delete it there."),
    error, h("div", { class: "row end" }, cancel, confirm));
  confirm.addEventListener("click", async () => {
    confirm.disabled = true;
    try {
      for (const id of [...ids]) {
        await post("/api/trash", { run: id }, { run: id });
        ids.splice(ids.indexOf(id), 1);
        onMoved(id);
        announce(`${id} was moved to the trash`);
      }
      dialog.close();
    } catch (failure) {
      error.textContent = failure.message;
      error.hidden = false;
      confirm.disabled = false;
    }
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  cancel.focus();
}

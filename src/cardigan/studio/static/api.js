// The server's answers, pictures included, and the run's events as they happen.

/** Build an address; empty parameters are left out. */
export function address(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== null && value !== undefined && value !== "") query.set(name, value);
  const text = query.toString().replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%2F", "/").replaceAll("%3B", ";");
  return text ? `${path}?${text}` : path;
}

async function answer(path, parameters, options) {
  let response;
  try {
    response = await fetch(address(path, parameters), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The studio's server does not answer: is it still running?");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  const error = new Error(said.error || `The server answered ${response.status}.`);
  error.status = response.status;
  throw error;
}

export const json = async (path, parameters, signal) => (await answer(path, parameters, { signal })).json();
export const upload = async (path, parameters, file, signal) => (await answer(path, parameters, { method: "POST", body: file, signal })).json();
export const picture = async (path, parameters, signal) => createImageBitmap(await (await answer(path, parameters, { signal })).blob());

/**
 * Wrap an asynchronous deed so that only one is under way and only the newest request waits: a dragged handle never queues old positions.
 * A busy server (429) is asked again shortly.
 */
export function newest(deed, failed) {
  let running = false, waiting = null;
  return async function run(...given) {
    waiting = given;
    if (running) return;
    running = true;
    while (waiting) {
      const now = waiting;
      waiting = null;
      try {
        await deed(...now);
      } catch (error) {
        if (error.status === 429) {
          await new Promise((done) => setTimeout(done, 250));
          waiting ??= now;
        } else if (error.name !== "AbortError") failed(error);
      }
    }
    running = false;
  };
}

const KINDS = ["progress", "samples", "checkpoint", "fault", "start", "resume", "rollback", "stop", "gone", "broken-line"];

/**
 * Follow a run's journal from an offset on: `heard(kind, line)` for every event, `state("live" | "lost" | "paused")` as the connection changes.
 * A lost connection is made again from the last event heard, ever more patiently; a hidden tab lets its connection go, since browsers allow only six to one address.
 */
export function follow(id, from, heard, state, signal) {
  let source = null, last = from, timer = 0, patience = 500, over = false;
  const open = () => {
    clearTimeout(timer);
    if (signal.aborted || document.hidden || over) return;
    source?.close();
    source = new EventSource(address("/api/events", { run: id, after: last }));
    source.onopen = () => ((patience = 500), state("live"));
    source.onerror = () => {
      state("lost");
      if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself, from the last id
      timer = setTimeout(open, patience);
      patience = Math.min(15000, patience * 2);
    };
    for (const kind of KINDS)
      source.addEventListener(kind, (event) => {
        if (event.lastEventId) last = event.lastEventId;
        if (kind === "gone") (over = true), close();
        let line = {};
        try {
          line = JSON.parse(event.data);
        } catch { /* `gone` may carry no words */ }
        heard(kind, line);
      });
  };
  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = null;
  };
  const seen = () => (document.hidden ? (close(), state("paused")) : open());
  document.addEventListener("visibilitychange", seen, { signal });
  signal.addEventListener("abort", close);
  open();
}

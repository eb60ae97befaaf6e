// Requests to the server, and the live events of a run.

/** Build a URL. Empty parameters are left out. */
export function address(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== null && value !== undefined && value !== "") query.set(name, value);
  const text = query.toString().replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%2F", "/").replaceAll("%3B", ";");
  return text ? `${path}?${text}` : path;
}

async function request(path, parameters, options) {
  let response;
  try {
    response = await fetch(address(path, parameters), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The studio's server does not respond: is it still running?");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const error = new Error(body.error || `The server responded with status ${response.status}.`);
  error.status = response.status;
  throw error;
}

export const json = async (path, parameters, signal) => (await request(path, parameters, { signal })).json();
export const post = async (path, parameters, values) => (await request(path, parameters, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(values) })).json();
export const upload = async (path, parameters, file, signal) => (await request(path, parameters, { method: "POST", body: file, signal })).json();
export const fetchImage = async (path, parameters, signal) => createImageBitmap(await (await request(path, parameters, { signal })).blob());

/**
 * Wrap an asynchronous task: only one call runs at a time, and only the newest waits, so dragging a handle queues no old positions.
 * Retries after a short delay if the server is busy (429).
 */
export function latestOnly(task, onError) {
  let running = false, waiting = null;
  return async function run(...args) {
    waiting = args;
    if (running) return;
    running = true;
    while (waiting) {
      const current = waiting;
      waiting = null;
      try {
        await task(...current);
      } catch (error) {
        if (error.status === 429) {
          await new Promise((done) => setTimeout(done, 250));
          waiting ??= current;
        } else if (error.name !== "AbortError") onError(error);
      }
    }
    running = false;
  };
}

const EVENT_NAMES = ["progress", "samples", "checkpoint", "fault", "start", "resume", "rollback", "stop", "deleted", "malformed-line"];

/**
 * Follow a run's journal from an offset: `onEvent(kind, line)` for every event, `onState("live" | "lost" | "paused")` for changes of the connection.
 * A lost connection is reopened after the last received event, with increasing delays. A hidden tab closes its connection, because browsers
 * allow only six per host.
 */
export function followEvents(id, from, onEvent, onState, signal) {
  let source = null, last = from, timer = 0, retryDelay = 500, isDeleted = false;
  const open = () => {
    clearTimeout(timer);
    if (signal.aborted || document.hidden || isDeleted) return;
    source?.close();
    source = new EventSource(address("/api/events", { run: id, after: last }));
    source.onopen = () => ((retryDelay = 500), onState("live"));
    source.onerror = () => {
      onState("lost");
      if (source.readyState !== EventSource.CLOSED) return; // the browser reconnects by itself, from the last id
      timer = setTimeout(open, retryDelay);
      retryDelay = Math.min(15000, retryDelay * 2);
    };
    for (const kind of EVENT_NAMES)
      source.addEventListener(kind, (event) => {
        if (event.lastEventId) last = event.lastEventId;
        if (kind === "deleted") (isDeleted = true), close();
        let line = {};
        try {
          line = JSON.parse(event.data);
        } catch { /* `deleted` may have no data */ }
        onEvent(kind, line);
      });
  };
  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = null;
  };
  const onVisibilityChange = () => (document.hidden ? (close(), onState("paused")) : open());
  document.addEventListener("visibilitychange", onVisibilityChange, { signal });
  signal.addEventListener("abort", close);
  open();
}

// What a notebook gives to a widget: a model with get, set, save_changes, on and off. Bytes are DataViews.
// `python(changes)` takes changes to the Python widget and returns what they have changed there.
window.showWidget = async (state, script) => {
  const values = {}, listeners = {}, unsaved = {};
  const decode = (value) => {
    if (value?.bytes !== undefined) return new DataView(Uint8Array.from(atob(value.bytes), (letter) => letter.charCodeAt(0)).buffer);
    return Array.isArray(value) ? value.map(decode) : value;
  };
  const put = (changes) => { // all values first, as in a notebook, then the listeners
    Object.assign(values, changes);
    Object.keys(changes).forEach((name) => (listeners[`change:${name}`] ?? []).forEach((listener) => listener()));
  };
  const save = async (changes) => {
    sent.push(changes);
    receive(await python(changes));
  };
  Object.assign(window, {
    sent: [], held: [], hold: false,
    receive: (changes) => put(Object.fromEntries(Object.entries(changes).map(([name, value]) => [name, decode(value)]))),
    release: () => {
      window.hold = false;
      held.splice(0).forEach(save);
    },
    listenerCount: () => Object.values(listeners).flat().length,
    model: {
      get: (name) => values[name],
      set: (name, value) => {
        unsaved[name] = value;
        put({ [name]: value });
      },
      save_changes: () => {
        const changes = { ...unsaved };
        Object.keys(unsaved).forEach((name) => delete unsaved[name]);
        if (hold) held.push(changes);
        else save(changes);
      },
      on: (name, listener) => (listeners[name] ??= []).push(listener),
      off: (name, listener) => (listeners[name] = listeners[name].filter((each) => each !== listener)),
    },
  });
  receive(state);
  const { default: widget } = await import(script);
  window.closeWidget = widget.render({ model, el: document.getElementById("cell") });
};

// A web worker: it opens the engine once, then generates the images of each request. Without web workers the page calls the same functions.

/** Return the engine of a model: WebAssembly if the browser has 128-bit vectors, plain JavaScript otherwise. */
function openEngine({ program, block, matmul_wasm }) {
  let module = null;
  try {
    if (matmul_wasm && WebAssembly.validate(matmul_wasm)) module = new WebAssembly.Module(matmul_wasm);
  } catch { /* forbidden or missing: plain JavaScript */ }
  return createEngine(program, block, module);
}

if (typeof document === "undefined") {
  let engine = null;
  self.onmessage = ({ data }) => {
    try {
      if (data.program) {
        engine = openEngine(data);
        self.postMessage({ id: data.id, kind: engine.kind });
      } else {
        const pixels = engine.generate(data.z, data.classes, data.count);
        self.postMessage({ id: data.id, pixels }, [pixels.buffer]);
      }
    } catch (error) {
      self.postMessage({ id: data.id, error: String(error) });
    }
  };
}

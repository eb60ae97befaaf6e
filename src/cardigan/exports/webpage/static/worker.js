// What a worker does with the engine: open it once, then answer each request for pictures. The page uses the same two functions where it has no worker.

/** Return the engine of a model: WebAssembly if the browser has 128-bit vectors and nobody asked for plain JavaScript. */
function openEngine({ program, block, matmul_wasm }) {
  let module = null;
  try {
    if (matmul_wasm && WebAssembly.validate(matmul_wasm)) module = new WebAssembly.Module(matmul_wasm);
  } catch { /* forbidden or not there: plain JavaScript it is */ }
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

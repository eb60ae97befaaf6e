// The search of the site runs in a worker. Browsers start no worker for a page that was opened from a file, so there
// the worker's script runs in a hidden frame instead. On a web server this file changes nothing.
if (location.protocol === "file:") {
  window.Worker = class {
    #frame = document.createElement("iframe")
    #waiting = []
    onmessage = null
    onerror = null

    constructor(address) {
      this.#frame.hidden = true
      this.#frame.onload = () => this.#start(new URL(address, document.baseURI))
      document.documentElement.append(this.#frame)
    }

    #start(address) {
      const inside = this.#frame.contentWindow
      inside.postMessage = (message) => this.#later(message, (data) => this.onmessage?.({ data }))
      const script = inside.document.createElement("script")
      script.src = address
      script.onerror = () => this.onerror?.(new Event("error", { cancelable: true }))
      script.onload = () => {
        const waiting = this.#waiting
        this.#waiting = null
        waiting.forEach((data) => this.postMessage(data))
      }
      inside.document.head.append(script)
    }

    postMessage(data) {
      if (this.#waiting) this.#waiting.push(data)
      else this.#later(data, (copy) => this.#frame.contentWindow?.onmessage?.({ data: copy }))
    }

    #later(message, receive) {
      const copy = structuredClone(message)
      setTimeout(() => receive(copy))
    }

    terminate() {
      this.#frame.remove()
    }
  }
}

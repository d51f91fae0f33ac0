// Browsers start no worker from a file. A hidden frame takes its place, so that the search works without a server.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const inside = this.frame.contentWindow
      this.ready = new Promise((loaded) => {
        const add = (address) =>
          new Promise((done) => {
            const script = inside.document.createElement("script")
            script.src = address
            script.onload = done
            inside.document.body.appendChild(script)
          })
        inside.postMessage = (data) => {
          const event = new MessageEvent("message", { data })
          this.dispatchEvent(event)
          if (this.onmessage) this.onmessage(event)
        }
        inside.importScripts = (...addresses) => addresses.reduce((last, one) => last.then(() => add(one)), Promise.resolve())
        add(new URL(url, location)).then(loaded)
      })
    }
    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
    }
    terminate() {
      this.frame.remove()
    }
  }
}

// How long the reader looked at an item: seconds in which the page was in sight.

// A tick that comes later than this lay under a closed lid, and only so much of it counts.
const LONGEST_TICK = 2000;

export class Looked {
  constructor(prefix) {
    this.prefix = prefix;
    this.token = null;
    this.sum = 0;
    this.last = performance.now();
    setInterval(() => this.tick(), 500);
    document.addEventListener("visibilitychange", () => this.tick(document.visibilityState === "hidden"));
    window.addEventListener("pagehide", () => this.tick(true));
  }

  // An item shown again goes on where it was, also after the page was loaded again.
  begin(token) {
    this.tick();
    this.token = token;
    try {
      this.sum = Number(sessionStorage.getItem(this.prefix + token)) || 0;
    } catch {
      this.sum = 0;
    }
  }

  // `seen`: the time since the last tick counts although the page is hidden now.
  tick(seen = document.visibilityState === "visible") {
    const now = performance.now();
    if (seen && this.token !== null) {
      this.sum += Math.min(now - this.last, LONGEST_TICK) / 1000;
      try {
        sessionStorage.setItem(this.prefix + this.token, this.sum.toFixed(1));
      } catch {
        // Full or forbidden: after the page is loaded again it counts from 0.
      }
    }
    this.last = now;
  }

  get seconds() {
    this.tick();
    return Math.round(this.sum * 10) / 10;
  }
}

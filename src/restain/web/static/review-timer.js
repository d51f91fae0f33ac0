// Viewing time of an item: seconds in which the page was visible.

// A later tick means that the computer slept; only so much of it counts.
const LONGEST_TICK = 2000;

export class ViewTimer {
  constructor(prefix) {
    this.prefix = prefix;
    this.token = null;
    this.sum = 0;
    this.last = performance.now();
    setInterval(() => this.tick(), 500);
    document.addEventListener("visibilitychange", () => this.tick(document.visibilityState === "hidden"));
    window.addEventListener("pagehide", () => this.tick(true));
  }

  // An item that is shown again, even after a reload of the page, continues its time.
  begin(token) {
    this.tick();
    this.token = token;
    try {
      this.sum = Number(sessionStorage.getItem(this.prefix + token)) || 0;
    } catch {
      this.sum = 0;
    }
  }

  // `visible`: the time since the last tick counts although the page is hidden now.
  tick(visible = document.visibilityState === "visible") {
    const now = performance.now();
    if (visible && this.token !== null) {
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

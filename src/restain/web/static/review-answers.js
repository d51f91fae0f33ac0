// Unsent answers: stored in the browser until the server has saved them, and sent once and in order.

const PAUSES = [1, 2, 4, 8, 15, 30];
const PATIENCE = 15_000;

// If the browser stores nothing, answers wait in memory.
const storage = {
  put(key, content) {
    try {
      localStorage.setItem(key, content);
    } catch {
      // Full or forbidden.
    }
  },
  remove(key) {
    try {
      localStorage.removeItem(key);
    } catch {
      // Forbidden.
    }
  },
  all(prefix) {
    try {
      return Object.entries(localStorage).filter(([key]) => key.startsWith(prefix));
    } catch {
      return [];
    }
  },
};

export class Refused extends Error {
  constructor(status, why) {
    super(why);
    this.status = status;
  }
}

// One request. Throws Refused if the server refuses, and the error of fetch if it does not answer.
export async function request(path, method, content) {
  const response = await fetch(path, {
    method,
    body: JSON.stringify(content),
    headers: { "Content-Type": "application/json" },
    redirect: "error",
    signal: AbortSignal.timeout(PATIENCE),
  });
  const answer = await response.json();
  if (!response.ok) throw new Refused(response.status, answer.error);
  return answer;
}

// Whether a retry can help.
export const isTemporary = (error) => !(error instanceof Refused) || error.status >= 500 || error.status === 429;

export class AnswerQueue {
  // `report(state, error)`: "saving", "saved", "away" (retries by itself), "refused" (somebody must act),
  // "dropped" (an answer was refused); `saved(token, answers)`: what counts now.
  constructor(prefix, address, report, saved) {
    this.prefix = prefix;
    this.address = address;
    this.report = report;
    this.saved = saved;
    this.tries = 0;
    this.busy = null;
    this.timer = 0;
    // The browser lists them in an order of its own.
    const kept = storage.all(prefix).map(([key, content]) => [key, JSON.parse(content)]);
    this.waiting = new Map(kept.sort(([, one], [, other]) => one.at - other.at));
    const wake = () => this.flush(true);
    window.addEventListener("online", wake);
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && wake());
  }

  get empty() {
    return this.waiting.size === 0;
  }

  // Answers to an item that the server does not have yet.
  of(token) {
    const own = [...this.waiting.values()].filter((one) => one.token === token);
    return Object.fromEntries(own.map((one) => [one.question, one.value]));
  }

  // `counts`: the answer that the server is known to have; null for none.
  put(token, question, value, counts, seconds) {
    const key = `${this.prefix}${token}.${question}`;
    const before = this.waiting.get(key);
    // What was under way may have arrived, so the server may have either.
    const replaces = before ? [...before.replaces, before.value] : [counts];
    const at = performance.timeOrigin + performance.now();
    const answer = { token, question, value, replaces: [...new Set(replaces)], seconds, at };
    this.waiting.set(key, answer);
    storage.put(key, JSON.stringify(answer));
    this.flush(true);
  }

  forget(key, answer) {
    if (this.waiting.get(key) !== answer) return;
    this.waiting.delete(key);
    storage.remove(key);
  }

  // Sends what waits. Ends when nothing does, or when the server is away; then it is tried again later.
  flush(now = false) {
    if (now) this.tries = 0;
    clearTimeout(this.timer);
    this.busy ??= this.send().finally(() => {
      this.busy = null;
    });
    return this.busy;
  }

  async send() {
    let dropped = false;
    if (!this.empty) this.report("saving");
    while (!this.empty) {
      const [key, answer] = this.waiting.entries().next().value;
      const { token, question, value, replaces, seconds } = answer;
      try {
        const path = `${this.address}/${token}/answers/${question}`;
        const { answers } = await request(path, "PUT", { value, replaces, seconds });
        this.tries = 0;
        this.forget(key, answer);
        this.saved(token, answers);
      } catch (error) {
        if (!(error instanceof Refused) || ![400, 409, 410].includes(error.status)) {
          this.report(isTemporary(error) ? "away" : "refused", error);
          this.later();
          return;
        }
        // No asking again would change it: another answer counts, the item is closed, or it is none.
        this.forget(key, answer);
        dropped = true;
        await this.late(token, error);
      }
    }
    if (!dropped) this.report("saved");
  }

  async late(token, error) {
    try {
      this.saved(token, (await request(`${this.address}/${token}/open`, "POST", {})).answers);
    } catch {
      // A closed item; its answers stand.
    }
    this.report("dropped", error);
  }

  later() {
    const pause = PAUSES[Math.min(this.tries, PAUSES.length - 1)];
    this.tries += 1;
    this.timer = setTimeout(() => this.flush(), pause * 1000);
  }
}

// The reading page: shows an item, takes its answers, goes on. Every word comes from the page's catalogue.

import { ask, Keeper, passing } from "./review-answers.js";
import { Picture } from "./review-image.js";
import { Looked } from "./review-looked.js";
import { written } from "./review-times.js";

const at = (id) => document.getElementById(id);
const data = JSON.parse(at("review-data").textContent);
const address = `/api/review/${data.study}`;
// A text is sent when the reader rests for so long.
const REST = 1000;
const PAUSES = [1, 2, 4, 8, 15];
const ENDS = {
  finished: ["review.end_finished", "review.end_finished_words"],
  waiting: ["review.end_waiting", "review.end_waiting_words"],
  blocked: ["review.end_blocked", "review.end_blocked_words"],
};

const state = { token: null, counts: {}, shown: {}, trail: [], broken: new Set(), ask: 0, moving: null };
const asks = data.questions.map((question) => ({
  ...question,
  element: document.querySelector(`[data-question="${question.name}"]`),
}));

function words(key, values = {}) {
  return data.texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

const looked = new Looked(`restain.looked.${data.study}.`);
const keeper = new Keeper(`restain.review.${data.study}.${encodeURIComponent(data.reader).replaceAll(".", "%2E")}.`, address, tell, (token, answers) => {
  if (token !== state.token) return;
  state.counts = answers;
  state.shown = { ...answers, ...keeper.of(token) };
  fill();
});

// Made once its place is in sight and so has a size.
let picture = null;
function glass() {
  const powers = document.querySelectorAll("[data-power]");
  const [bar, length] = ["i", "b"].map((part) => at("scale").querySelector(part));
  picture ??= new Picture(at("image"), data, { bar, length, powers }, tileFailed);
  return picture;
}

function tell(kind, fault) {
  const saving = at("saving");
  saving.dataset.state = kind;
  if (kind === "saving") saving.textContent = words("review.saving");
  if (kind === "saved") saving.textContent = Object.keys(state.counts).length ? words("review.saved") : "";
  if (kind === "away") saving.textContent = words("review.away");
  if (kind === "refused") {
    saving.textContent = fault.status === 401 ? words("review.signed_out") : words("review.refused", { why: fault.message });
  }
  if (kind === "dropped") saving.textContent = words("review.dropped", { why: fault.message });
  marks();
}

const missing = () => asks.filter((one) => one.needed && !(one.name in state.shown));

// Brings the form in line with the answers; a text that is being written stays.
function fill() {
  for (const { name, choices, element } of asks) {
    if (choices.length) {
      for (const input of element.querySelectorAll("input")) input.checked = input.value === state.shown[name];
    } else {
      const area = element.querySelector("textarea");
      if (document.activeElement !== area) area.value = state.shown[name] ?? "";
    }
  }
  marks();
}

function marks() {
  const waiting = state.token === null ? {} : keeper.of(state.token);
  asks.forEach(({ name, element }, place) => {
    const answered = name in state.shown;
    element.classList.toggle("asked", place === state.ask);
    element.classList.toggle("answered", answered);
    const held = at("saving").dataset.state === "saving" ? "review.saving" : "review.held";
    element.querySelector(".kept").textContent = !answered ? "" : words(name in waiting ? held : "review.saved");
  });
  const left = missing().length;
  at("next").setAttribute("aria-disabled", String(left > 0 || state.moving !== null));
  at("left").textContent = left === 0 ? "" : left === 1 ? words("review.left_one") : words("review.left", { count: left });
  at("earlier").disabled = state.trail.indexOf(state.token) <= 0;
}

function show(given) {
  at("intro").hidden = true;
  at("desk").hidden = given.state !== "item";
  at("end").hidden = given.state === "item";
  state.trail = given.trail;
  at("bar").value = given.done;
  at("done").textContent = words("review.done_so_far", given);
  if (given.state !== "item") {
    end(given);
    return;
  }
  // While the token is still that of the item whose text it is: leaving a text keeps it.
  for (const area of document.querySelectorAll("textarea")) area.blur();
  const again = state.token === given.token;
  state.token = given.token;
  state.counts = given.answers;
  state.shown = { ...given.answers, ...keeper.of(given.token) };
  state.ask = Math.max(0, asks.findIndex((one) => one.needed && !(one.name in state.shown)));
  at("number").textContent = words("review.number", given);
  at("broken").hidden = true;
  fill();
  if (keeper.empty) tell("saved");
  looked.begin(given.token);
  if (!again || state.broken.has(given.token)) glass().show(given.token);
  state.broken.delete(given.token);
  at("questions").scrollTop = 0;
  at("image").focus({ preventScroll: true });
}

function end(given) {
  looked.begin(null);
  state.token = null;
  const when = given.opens ? written(given.opens) : "";
  const [title, sentence] = ENDS[given.state];
  at("end-title").textContent = words(title);
  at("end-words").textContent = words(sentence, { when });
  // Before the second part there is none to go back to: looking would put the part off.
  at("last").hidden = given.trail.length === 0;
  at("end").focus();
}

const pause = (seconds) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    window.addEventListener("online", () => (clearTimeout(timer), resolve()), { once: true });
  });

// Asks until the server answers, and says meanwhile that it does not.
async function patiently(path, content) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await ask(path, "POST", content);
    } catch (fault) {
      tell(passing(fault) ? "away" : "refused", fault);
      if (!passing(fault)) return null;
      await pause(PAUSES[Math.min(tries, PAUSES.length - 1)]);
    }
  }
}

// One move at a time; a further wish is dropped.
async function move(work) {
  if (state.moving !== null) return;
  state.moving = work;
  marks();
  try {
    sendTexts();
    const given = await work();
    if (given) show(given);
  } finally {
    state.moving = null;
    marks();
  }
}

// Until the server has every answer.
async function settled() {
  for (let tries = 0; !keeper.empty; tries += 1) {
    await keeper.flush();
    if (!keeper.empty) await pause(PAUSES[Math.min(tries, PAUSES.length - 1)]);
  }
}

const further = () => patiently(`${address}/next`, { without: [...state.broken] });

function next() {
  const [first] = missing();
  if (first) {
    turnTo(asks.indexOf(first));
    return;
  }
  move(async () => {
    const token = state.token;
    sendTexts();
    await settled();
    const place = state.trail.indexOf(token);
    if (place >= 0 && place < state.trail.length - 1) return patiently(`${address}/${state.trail[place + 1]}/open`, {});
    return further();
  });
}

function earlier() {
  const place = state.trail.indexOf(state.token);
  if (place > 0) move(() => patiently(`${address}/${state.trail[place - 1]}/open`, {}));
}

function answer(name, value) {
  state.shown[name] = value;
  keeper.put(state.token, name, value, state.counts[name] ?? null, looked.seconds);
  marks();
}

function choose(name, value) {
  answer(name, value);
  const after = asks.findIndex((one) => one.needed && !(one.name in state.shown));
  if (after >= 0) state.ask = after;
  fill();
}

// A text is an answer once it differs from the one before.
function sendText(area) {
  clearTimeout(Number(area.dataset.timer));
  if (state.token === null || area.value === (state.shown[area.name] ?? "")) return;
  answer(area.name, area.value);
}

function sendTexts() {
  for (const area of at("questions").querySelectorAll("textarea")) sendText(area);
}

function turnTo(place) {
  state.ask = place;
  marks();
  const { element, choices } = asks[place];
  element.scrollIntoView({ block: "nearest" });
  if (choices.length) at("image").focus({ preventScroll: true });
  else element.querySelector("textarea").focus();
}

async function tileFailed(url) {
  const { token } = state;
  if (token === null || !url.includes(token)) return;
  try {
    const response = await fetch(url);
    if (response.ok || token !== state.token) return;
    if (response.status === 422) {
      state.broken.add(token);
      at("broken").hidden = false;
      return;
    }
    tell("refused", { status: response.status, message: (await response.json()).error });
  } catch {
    if (token === state.token) waitForImage();
  }
}

// The server is away: the tiles are asked for again until they come.
let imageTimer = null;
function waitForImage() {
  tell("away");
  if (imageTimer !== null) return;
  const { token } = state;
  imageTimer = setTimeout(async () => {
    imageTimer = null;
    if (token !== state.token) return;
    try {
      await fetch(`${address}/${token}/tiles/0/0/0.jpg`);
      picture.reload();
      if (keeper.empty) tell("saved");
      else keeper.flush(true);
    } catch {
      waitForImage();
    }
  }, 3000);
}

const keys = {
  "+": () => picture.zoomBy(1.5),
  "=": () => picture.zoomBy(1.5),
  "-": () => picture.zoomBy(1 / 1.5),
  o: () => picture.home(),
  ArrowLeft: () => picture.pan(-0.2, 0),
  ArrowRight: () => picture.pan(0.2, 0),
  ArrowUp: () => picture.pan(0, -0.2),
  ArrowDown: () => picture.pan(0, 0.2),
  a: () => turnTo((state.ask + 1) % asks.length),
  n: next,
  Enter: next,
  b: earlier,
  "?": () => at("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || at("keys").open || at("desk").hidden) return;
  const { target } = event;
  if (event.key === "Escape") at("image").focus({ preventScroll: true });
  if (target.matches("textarea")) return;
  // In a group of choices the arrows choose, as everywhere.
  if (target.matches("input[type=radio]") && /^Arrow/.test(event.key)) return;
  if (target.matches("button, a, summary") && [" ", "Enter"].includes(event.key)) return;
  const asked = asks[state.ask];
  const choice = asked.choices.find((one) => one.key === event.key);
  const action = choice ? () => choose(asked.name, choice.value) : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

const form = at("questions");
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", ({ target }) => target.matches("input") && choose(target.name, target.value));
form.addEventListener("focusin", ({ target }) => {
  state.ask = asks.findIndex((one) => one.element.contains(target));
  if (state.ask < 0) state.ask = 0;
  marks();
});
// After a click the arrows are to move the image again, not the choice.
form.addEventListener("click", ({ target, detail }) => {
  if (detail > 0 && target.matches("input")) at("image").focus({ preventScroll: true });
});
for (const area of form.querySelectorAll("textarea")) {
  area.addEventListener("input", () => {
    clearTimeout(Number(area.dataset.timer));
    area.dataset.timer = String(setTimeout(() => sendText(area), REST));
  });
  area.addEventListener("blur", () => sendText(area));
}
window.addEventListener("pagehide", sendTexts);
document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && sendTexts());

const on = (id, action) => at(id)?.addEventListener("click", action);
on("begin", () => move(further));
if (at("begin")) at("begin").disabled = false;
on("next", next);
on("earlier", earlier);
on("last", () => move(() => patiently(`${address}/${state.trail.at(-1)}/open`, {})));
on("fit", () => picture.home());
on("zoom-in", () => picture.zoomBy(1.5));
on("zoom-out", () => picture.zoomBy(1 / 1.5));
on("keys-button", () => at("keys").showModal());
on("again", () => {
  at("broken").hidden = true;
  state.broken.delete(state.token);
  picture.show(state.token);
});
on("pass", () => move(further));
for (const button of document.querySelectorAll("[data-power]")) {
  button.addEventListener("click", () => picture.magnify(Number(button.dataset.power)));
}

window.restainReview = { state, keeper, glass, looked };
// What an earlier visit could not send.
if (!keeper.empty) keeper.flush();

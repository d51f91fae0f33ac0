// The review page: shows an item, sends its answers, moves on.

import { AnswerQueue, isTemporary, request } from "./review-answers.js";
import { ReviewImage } from "./review-image.js";
import { ViewTimer } from "./review-timer.js";
import { written } from "./review-times.js";

const at = (id) => document.getElementById(id);
const data = JSON.parse(at("review-data").textContent);
const address = `api/review/${data.study}`;
// A text is sent after a pause of so many ms.
const REST = 1000;
const PAUSES = [1, 2, 4, 8, 15];
const ENDS = {
  finished: ["review.end_finished", "review.end_finished_text"],
  waiting: ["review.end_waiting", "review.end_waiting_text"],
  blocked: ["review.end_blocked", "review.end_blocked_text"],
};

const state = { token: null, counts: {}, shown: {}, trail: [], broken: new Set(), question: 0, moving: null };
const questions = data.questions.map((question) => ({
  ...question,
  element: document.querySelector(`[data-question="${question.name}"]`),
}));

function text(key, values = {}) {
  return data.texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

const viewTimer = new ViewTimer(`restain.seconds.${data.study}.`);
const queue = new AnswerQueue(`restain.review.${data.study}.${encodeURIComponent(data.reader).replaceAll(".", "%2E")}.`, address, showState, (token, saved) => {
  if (token !== state.token) return;
  state.counts = saved;
  state.shown = { ...saved, ...queue.of(token) };
  fill();
});

// Made when its element is visible and has a size.
let picture = null;
function reviewImage() {
  const powers = document.querySelectorAll("[data-power]");
  const [bar, length] = ["i", "b"].map((part) => at("scale").querySelector(part));
  picture ??= new ReviewImage(at("image"), data, { bar, length, powers }, tileFailed);
  return picture;
}

function showState(kind, error) {
  const saving = at("saving");
  saving.dataset.state = kind;
  if (kind === "saving") saving.textContent = text("review.saving");
  if (kind === "saved") saving.textContent = Object.keys(state.counts).length ? text("review.saved") : "";
  if (kind === "away") saving.textContent = text("review.away");
  if (kind === "refused") {
    saving.textContent = error.status === 401 ? text("review.signed_out") : text("review.refused", { why: error.message });
  }
  if (kind === "dropped") saving.textContent = text("review.dropped", { why: error.message });
  marks();
}

const missing = () => questions.filter((one) => one.needed && !(one.name in state.shown));

// Update the form from the answers; a text that is being typed stays.
function fill() {
  for (const { name, choices, element } of questions) {
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
  const waiting = state.token === null ? {} : queue.of(state.token);
  questions.forEach(({ name, element }, place) => {
    const answered = name in state.shown;
    element.classList.toggle("current", place === state.question);
    element.classList.toggle("answered", answered);
    const held = at("saving").dataset.state === "saving" ? "review.saving" : "review.held";
    element.querySelector(".saved-state").textContent = !answered ? "" : text(name in waiting ? held : "review.saved");
  });
  // The guess of the origin must not prime the score.
  const scored = questions.every((one) => !one.kind.startsWith("her2") || one.name in state.shown);
  for (const { kind, element } of questions) if (kind === "modality") element.disabled = !scored;
  const left = missing().length;
  at("next").setAttribute("aria-disabled", String(left > 0 || state.moving !== null));
  at("left").textContent = left === 0 ? "" : left === 1 ? text("review.left_one") : text("review.left", { count: left });
  at("earlier").disabled = state.trail.indexOf(state.token) <= 0;
}

function show(content) {
  at("intro").hidden = true;
  at("desk").hidden = content.state !== "item";
  at("end").hidden = content.state === "item";
  state.trail = content.trail;
  at("bar").value = content.done;
  at("done").textContent = text("review.done_so_far", content);
  if (content.state !== "item") {
    showEnd(content);
    return;
  }
  // Leaving a text saves it, so this comes before the token changes.
  for (const area of document.querySelectorAll("textarea")) area.blur();
  const again = state.token === content.token;
  state.token = content.token;
  state.counts = content.answers;
  state.shown = { ...content.answers, ...queue.of(content.token) };
  state.question = Math.max(0, questions.findIndex((one) => one.needed && !(one.name in state.shown)));
  at("number").textContent = text("review.number", content);
  at("broken").hidden = true;
  fill();
  if (queue.empty) showState("saved");
  viewTimer.begin(content.token);
  if (!again || state.broken.has(content.token)) reviewImage().show(content.token);
  state.broken.delete(content.token);
  at("questions").scrollTop = 0;
  at("image").focus({ preventScroll: true });
}

function showEnd(content) {
  viewTimer.begin(null);
  state.token = null;
  const when = content.opens ? written(content.opens) : "";
  const [title, sentence] = ENDS[content.state];
  at("end-title").textContent = text(title);
  at("end-text").textContent = text(sentence, { when });
  // Before the second part there is no way back: opening an item would delay the part.
  at("last").hidden = content.trail.length === 0;
  at("end").focus();
}

const pause = (seconds) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    window.addEventListener("online", () => (clearTimeout(timer), resolve()), { once: true });
  });

// Retries until the server answers, and reports that it does not.
async function retry(path, content) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await request(path, "POST", content);
    } catch (error) {
      showState(isTemporary(error) ? "away" : "refused", error);
      if (!isTemporary(error)) return null;
      await pause(PAUSES[Math.min(tries, PAUSES.length - 1)]);
    }
  }
}

// One move at a time; further ones are ignored.
async function move(work) {
  if (state.moving !== null) return;
  state.moving = work;
  marks();
  try {
    sendTexts();
    const content = await work();
    if (content) show(content);
  } finally {
    state.moving = null;
    marks();
  }
}

// Resolves when the server has every answer.
async function settled() {
  for (let tries = 0; !queue.empty; tries += 1) {
    await queue.flush();
    if (!queue.empty) await pause(PAUSES[Math.min(tries, PAUSES.length - 1)]);
  }
}

const nextItem = () => retry(`${address}/next`, { without: [...state.broken] });

function next() {
  const [first] = missing();
  if (first) {
    goToQuestion(questions.indexOf(first));
    return;
  }
  move(async () => {
    const token = state.token;
    sendTexts();
    await settled();
    const place = state.trail.indexOf(token);
    if (place >= 0 && place < state.trail.length - 1) return retry(`${address}/${state.trail[place + 1]}/open`, {});
    return nextItem();
  });
}

function earlier() {
  const place = state.trail.indexOf(state.token);
  if (place > 0) move(() => retry(`${address}/${state.trail[place - 1]}/open`, {}));
}

function answer(name, value) {
  state.shown[name] = value;
  queue.put(state.token, name, value, state.counts[name] ?? null, viewTimer.seconds);
  marks();
}

function choose(name, value) {
  answer(name, value);
  const after = questions.findIndex((one) => one.needed && !(one.name in state.shown));
  if (after >= 0) state.question = after;
  fill();
}

// A text is an answer if it differs from the one before.
function sendText(area) {
  clearTimeout(Number(area.dataset.timer));
  if (state.token === null || area.value === (state.shown[area.name] ?? "")) return;
  answer(area.name, area.value);
}

function sendTexts() {
  for (const area of at("questions").querySelectorAll("textarea")) sendText(area);
}

function goToQuestion(place) {
  state.question = place;
  marks();
  const { element, choices } = questions[place];
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
    showState("refused", { status: response.status, message: (await response.json()).error });
  } catch {
    if (token === state.token) waitForImage();
  }
}

// The server does not answer: retry the tiles until they load.
let imageTimer = null;
function waitForImage() {
  showState("away");
  if (imageTimer !== null) return;
  const { token } = state;
  imageTimer = setTimeout(async () => {
    imageTimer = null;
    if (token !== state.token) return;
    try {
      await fetch(`${address}/${token}/tiles/0/0/0.jpg`);
      picture.reload();
      if (queue.empty) showState("saved");
      else queue.flush(true);
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
  a: () => goToQuestion((state.question + 1) % questions.length),
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
  // In a group of radio buttons the arrows choose.
  if (target.matches("input[type=radio]") && /^Arrow/.test(event.key)) return;
  if (target.matches("button, a, summary") && [" ", "Enter"].includes(event.key)) return;
  const question = questions[state.question];
  const choice = question.element.disabled ? null : question.choices.find((one) => one.key === event.key);
  const action = choice ? () => choose(question.name, choice.value) : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

const form = at("questions");
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", ({ target }) => target.matches("input") && choose(target.name, target.value));
form.addEventListener("focusin", ({ target }) => {
  state.question = questions.findIndex((one) => one.element.contains(target));
  if (state.question < 0) state.question = 0;
  marks();
});
// After a click, the arrows move the image again.
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
on("begin", () => move(nextItem));
if (at("begin")) at("begin").disabled = false;
on("next", next);
on("earlier", earlier);
on("last", () => move(() => retry(`${address}/${state.trail.at(-1)}/open`, {})));
on("fit", () => picture.home());
on("zoom-in", () => picture.zoomBy(1.5));
on("zoom-out", () => picture.zoomBy(1 / 1.5));
on("keys-button", () => at("keys").showModal());
on("again", () => {
  at("broken").hidden = true;
  state.broken.delete(state.token);
  picture.show(state.token);
});
on("pass", () => move(nextItem));
for (const button of document.querySelectorAll("[data-power]")) {
  button.addEventListener("click", () => picture.magnify(Number(button.dataset.power)));
}

window.restainReview = { state, queue, reviewImage, viewTimer };
// Answers that an earlier visit could not send.
if (!queue.empty) queue.flush();

// The staining page: an upload, and the list of jobs.

const at = (id) => document.getElementById(id);
const data = JSON.parse(at("view-data").textContent);
const { texts } = data;
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
let sending = null;
// Files that wait for their turn, and the images of those that were sent.
const queue = [];
const sent = [];

function refuse(sentence) {
  at("refused").textContent = sentence;
  at("refused").hidden = !sentence;
}

function say(sentence) {
  at("sending-text").textContent = sentence;
}

function send(file) {
  if (!file) return;
  if (sending) {
    queue.push(file);
    return;
  }
  refuse("");
  if (file.size > data.maxBytes) {
    refuse(fill(texts["stain.size_known"], { name: file.name, most: data.maxText }));
    return;
  }
  if (!data.suffixes.some((suffix) => file.name.toLowerCase().endsWith(suffix))) {
    refuse(fill(texts["error.upload_kind"], { name: file.name, kinds: data.suffixes.join(" ") }));
    return;
  }
  const request = new XMLHttpRequest();
  sending = request;
  at("sending").hidden = false;
  const end = (sentence) => {
    sending = null;
    at("sending").hidden = true;
    say("");
    refuse(sentence);
  };
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    const done = Math.floor((100 * loaded) / Math.max(1, total));
    at("sent").value = done;
    say(fill(texts[done < 100 ? "stain.uploading" : "stain.checking"], { name: file.name, done }));
  });
  request.addEventListener("load", () => {
    let answer = {};
    try {
      answer = JSON.parse(request.responseText);
    } catch {
      answer = { error: texts["error.upload_cut"] };
    }
    if (request.status !== 201) {
      queue.length = 0;
      end(answer.error);
      return;
    }
    sent.push(answer.image);
    end("");
    if (queue.length) send(queue.shift());
    else location.assign(`stain?${new URLSearchParams(sent.map((image) => ["image", image]))}`);
  });
  request.addEventListener("error", () => end(texts["error.upload_cut"]));
  request.addEventListener("abort", () => (queue.length = 0) || end(texts["stain.stopped"]));
  request.open("POST", `api/stain/uploads?name=${encodeURIComponent(file.name)}`);
  request.send(file);
}

at("file").addEventListener("change", () => {
  for (const file of at("file").files) send(file);
  at("file").value = "";
});
at("stop").addEventListener("click", () => sending?.abort());

// On the whole page: a file dropped beside the frame would replace the page.
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  for (const file of event.dataTransfer.files) send(file);
});

const boxes = [...document.querySelectorAll("[name=image]")];
function choose() {
  if (at("stain-selected")) at("stain-selected").disabled = !boxes.some((one) => one.checked);
}
for (const one of boxes) one.addEventListener("change", choose);
addEventListener("pageshow", choose);

for (const button of document.querySelectorAll("[data-remove]")) {
  button.addEventListener("click", () => {
    at("sure-text").textContent = fill(texts["stain.own_sure"], { name: button.dataset.name });
    at("sure").dataset.of = button.dataset.remove;
    at("sure").returnValue = "keep";
    at("sure").showModal();
  });
}
at("sure").addEventListener("close", async () => {
  if (at("sure").returnValue !== "delete") return;
  try {
    const answer = await fetch(`api/stain/uploads/${at("sure").dataset.of}`, { method: "DELETE" });
    if (answer.ok) location.reload();
    else refuse((await answer.json()).error);
  } catch {
    refuse(texts["error.offline"]);
  }
});

function row(job) {
  const line = document.createElement("li");
  line.dataset.state = job.state;
  const picture = line.appendChild(document.createElement("img"));
  picture.alt = "";
  picture.hidden = !job.thumbnail;
  if (job.thumbnail) picture.src = job.thumbnail;
  const link = line.appendChild(document.createElement("a"));
  link.href = `stain/${job.id}`;
  link.textContent = job.name;
  line.appendChild(document.createElement("span")).textContent = job.stateText;
  const end = line.appendChild(document.createElement("span"));
  if (job.state === "running") {
    const bar = end.appendChild(document.createElement("progress"));
    bar.max = job.total;
    bar.value = job.done;
    bar.setAttribute("aria-label", texts["stain.progress"]);
  } else {
    end.className = "when";
    end.textContent = new Date(job.created).toLocaleString(document.documentElement.lang);
  }
  const about = line.appendChild(document.createElement("span"));
  about.className = "why";
  about.textContent = [job.about, job.owner].filter(Boolean).join(" · ");
  if (job.message) {
    const why = line.appendChild(document.createElement("span"));
    why.className = job.state === "failed" ? "reason" : "why";
    why.textContent = job.message;
  }
  return line;
}

let shown = "";
function list(jobs) {
  const next = JSON.stringify(jobs);
  if (next === shown) return;
  shown = next;
  const focused = document.activeElement?.getAttribute("href");
  at("jobs").replaceChildren(...jobs.map(row));
  at("no-jobs").hidden = jobs.length > 0;
  if (focused?.startsWith("stain/")) at("jobs").querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

async function refresh() {
  try {
    const answer = await fetch("api/stain/jobs", { cache: "no-store" });
    if (answer.ok) list((await answer.json()).jobs);
  } catch {
    // The next request may succeed.
  }
  setTimeout(refresh, 2000);
}

list(data.jobs);
setTimeout(refresh, 2000);

// The page: images on the left, the image with its objects in the middle, the table of objects and the jobs on the right.

import * as api from "./api.js";
import { Channels } from "./channels.js";
import { at, made } from "./elements.js";
import { showRemoved } from "./removed.js";
import { listModels, listRounds, whenChosen } from "./rounds.js";
import { Tools, TOOLS } from "./tools.js";
import { Uploads, dropped, isShown } from "./uploads.js";
import { View } from "./view.js";
import { Windowed } from "./windowed.js";

const state = { session: null, images: new Map(), order: [], image: null, objects: [], classOfNew: 1, by: "score", down: false, jobs: new Map(), revisions: new Map(), wanted: null };

let saidAt = 0;
function say(words, isBad = false) {
  at("said").textContent = words;
  at("said").className = isBad ? "bad" : "";
  saidAt = Date.now();
  setTimeout(() => { if (Date.now() - saidAt > 7900) at("said").textContent = ""; }, 8000);
}

async function tried(work) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof api.Refused) at("door").hidden = false;
    say(error.message, true);
    return undefined;
  }
}

const counted = (n) => `${n} object${n === 1 ? "" : "s"}`;
const somebody = (sessionStorage.somebody ??= `somebody ${Math.random().toString(36).slice(2, 6)}`);
const who = () => at("who").value.trim() || somebody;

// ---------------------------------------------------------------- images

const view = new View(at("viewer"), null);
const tools = new Tools(view, { choose, edit, classNumber: () => Number(at("class").value) || state.classOfNew });
const channels = new Channels(at("channels"), () => view.relook(channels.text()));
const rowsOfImages = new Windowed(at("images"), at("images"), imageRow, (above, below, rows) => {
  if (rows.length) [rows[0].style.marginTop, rows.at(-1).style.marginBottom] = [`${above}px`, `${below}px`];
});
const rowsOfObjects = new Windowed(at("table"), at("objects"), objectRow, (above, below) => {
  at("above").style.height = `${above}px`;
  at("below").style.height = `${below}px`;
});
const collator = new Intl.Collator(undefined, { numeric: true });

async function load() {
  const session = await tried(() => api.get("session"));
  if (!session) return;
  state.session = session;
  state.images = new Map(session.images.map((image) => [image.image, image]));
  at("folder").textContent = session.folder;
  at("class").replaceChildren(...session.classes.map((name, k) => made("option", { value: k + 1, textContent: name })));
  showClass();
  for (const job of session.jobs) state.jobs.set(job.number, job);
  listModels(session);
  listForms(session.forms);
  listRounds(session);
  if (!state.images.has(state.image)) state.image = null;  // it was removed
  sortImages(!state.image);
  listJobs();
  showRemoved(session.removed, tried);
  at("segment-all").disabled = !state.images.size;
  showImageButtons();
  if (!state.image && state.images.size) open(sortedImages()[0].image);
}

const FORMS = { labels: "label images", csv: "tables", coco: "COCO", geojson: "GeoJSON, for QuPath", rois: "ImageJ ROIs", overlay: "pictures with outlines", parquet: "Parquet tables", cityscapes: "Cityscapes results" };

function listForms(forms) {
  const options = (all) => forms.map((form) => {
    const option = made("option", { value: `${all ? "all" : "one"} ${form}`, textContent: FORMS[form] ?? form });
    Object.assign(option.dataset, { form, ...(all && { all }) });
    return option;
  });
  at("export").replaceChildren(made("option", { value: "", textContent: "as …" }),
    made("optgroup", { label: "all images" }, ...options("all")), made("optgroup", { label: "this image" }, ...options("")));
}

let loading = null, took = 0;
function loadSoon() {  // hundreds of images may come at once, and a long list takes long to load
  loading ??= new Promise((resolve) => setTimeout(resolve, Math.max(300, 5 * took))).then(async () => {
    loading = null;
    const begun = performance.now();
    await load();
    took = performance.now() - begun;
  });
  return loading;
}

function sortedImages() {
  const images = [...state.images.values()];
  const unsure = (image) => (image.state === "reviewed" ? 2 : image.least_score ?? 1);
  const byName = (a, b) => collator.compare(a.image, b.image);
  return images.sort(at("sort").value === "name" ? byName : (a, b) => unsure(a) - unsure(b) || byName(a, b));
}

function sortImages(anew = true) {  // anew only when somebody asks for it: the list would jump under their hands
  const sorted = sortedImages().map(({ image }) => image), before = new Set(state.order);
  state.order = anew ? sorted : [...state.order.filter((name) => state.images.has(name)), ...sorted.filter((name) => !before.has(name))];
  listImages();
}

const shownImages = () => state.order.map((name) => state.images.get(name)).filter((image) => image);

function imageRow(image, index) {
  const words = { new: "new", segmented: "segmented", "in work": "in work", reviewed: "reviewed" };
  const share = image.state === "in work" ? `, ${Math.max(1, Math.round(100 * image.reviewed))} %` : "";
  const kind = { "in work": "work", reviewed: "reviewed" }[image.state] ?? "";
  const picture = made("img", { loading: "lazy", alt: "", src: api.address("thumbnail", { name: image.image, mark: image.mark }) });
  const text = made("span", {},
    made("span", { className: "name", textContent: image.image, title: image.image }),
    made("span", { className: `faint state ${kind}`, textContent: `${counted(image.objects)}, ${words[image.state] ?? image.state}${share}` }));
  const button = made("button", { onclick: () => open(image.image) }, picture, text);
  button.setAttribute("aria-current", image.image === state.image);
  button.dataset.image = image.image;
  const row = made("li", {}, button);
  row.setAttribute("aria-setsize", state.images.size);
  row.setAttribute("aria-posinset", index + 1);
  return row;
}

function listImages() {
  rowsOfImages.show(shownImages());
  const done = [...state.images.values()].filter((image) => image.state === "reviewed").length;
  at("progress").textContent = state.images.size ? `${done} of ${state.images.size} reviewed` : "";
  at("empty").hidden = state.images.size > 0;
}

const showImageButtons = () => { at("remove").disabled = at("segment").disabled = !state.image; };

async function open(name) {
  state.wanted = name;
  const info = await tried(() => api.get("image", { name }));
  if (!info || state.wanted !== name) return;
  state.image = name;
  state.objects = [];
  showImageButtons();
  tools.give_up();
  channels.open(info);
  view.look = channels.text();
  view.open(info, state.session.side);
  showChosen(new Set());
  listImages();
  showTools();
  rowsOfImages.reveal(rowsOfImages.items.findIndex((image) => image.image === name));
  await listObjects();
}

function step(by) {
  const images = shownImages(), now = images.findIndex((image) => image.image === state.image);
  const next = images[now + by];
  if (next) open(next.image);
}

// --------------------------------------------------------------- objects

let listed = 0;  // how often objects were asked for: an answer to an earlier question may come after that to a later one
async function listObjects() {
  const name = state.image, number = ++listed;
  const objects = await tried(() => api.get("objects", { name }));
  if (!objects || name !== state.image || number !== listed) return;
  state.objects = objects;
  const there = new Set(objects.map(({ label }) => label)), left = chosen().filter((label) => there.has(label));
  if (left.length < view.chosen.size) showChosen(new Set(left));  // the others were redrawn, or erased
  showObjects();
}

function showObjects() {
  const worth = (one) => (one[state.by] === null ? 2 : Number(one[state.by]));
  const sorted = [...state.objects].sort((a, b) => (worth(a) - worth(b)) * (state.down ? -1 : 1) || a.label - b.label);
  at("count").textContent = counted(state.objects.length);
  at("objects").parentElement.setAttribute("aria-rowcount", sorted.length + 1);
  rowsOfObjects.show(sorted);
  showClass();
}

function showClass() {  // of the chosen objects, if they are alike; without a choice, that of new ones
  const classes = new Set(state.objects.filter(({ label }) => view.chosen.has(label)).map((one) => one.class_number));
  at("class").value = classes.size === 1 ? [...classes][0] : classes.size ? "" : state.classOfNew;
}

function objectRow(one, index) {
  const cells = [one.label, one.score === null ? "–" : one.score.toFixed(2), one.area, state.session.classes[one.class_number - 1], one.reviewed ? "✓" : ""];
  const row = made("tr", { tabIndex: 0 }, ...cells.map((text) => made("td", { textContent: text })));
  row.dataset.label = one.label;
  row.setAttribute("aria-selected", view.chosen.has(one.label));
  row.setAttribute("aria-rowindex", index + 2);
  row.onclick = (event) => { choose(one.label, event.shiftKey); view.fly(one.box); };
  row.onkeydown = (event) => {
    if (event.key === "Enter") row.click();
    else if (event.key === "ArrowDown") rowsOfObjects.focus(index + 1);
    else if (event.key === "ArrowUp") rowsOfObjects.focus(index - 1);
    else return;
    event.preventDefault();
  };
  return row;
}

function choose(label, add) {
  const labels = new Set(add ? view.chosen : []);
  if (label) labels.has(label) ? labels.delete(label) : labels.add(label);
  showChosen(labels);
  if (label) rowsOfObjects.reveal(rowsOfObjects.items.findIndex((one) => one.label === label));
}

function showChosen(labels) {
  view.choose(labels);
  const all = [...labels];
  at("heard").textContent = !all.length ? "" : all.length === 1 ? `Object ${all[0]} is chosen.` : `${all.length} objects are chosen.`;
  for (const row of at("objects").children) row.setAttribute("aria-selected", view.chosen.has(Number(row.dataset.label)));
  showClass();
  showTools();
}

// ------------------------------------------------------------ operations

let working = Promise.resolve();  // operations go one after another, in the order in which they were made

function edit(operation) {
  return queue(() => api.post("edits", { operation, who: who() }));
}

function queue(request) {
  working = working.then(async () => {
    const done = await tried(request);
    if (done) take(done);
    return done;
  });
  return working;
}

function take(done) {
  if (done.revision < (state.revisions.get(done.image) ?? 0)) return;  // told too late
  const isNews = done.revision > (state.revisions.get(done.image) ?? 0);  // and not our own edit again
  state.revisions.set(done.image, done.revision);
  state.images.set(done.image, done.progress);
  if (!isNews) return;
  if (done.image === state.image) {
    if (done.kind === "delete" || done.kind === "merge") showChosen(new Set());
    view.changed(done.box);
    listObjects();
  }
  listImages();
  showTools();
}

const chosen = () => [...view.chosen];
const ACTIONS = [
  { name: "delete", key: "x", needs: 1, title: "Remove the chosen objects", run: () => edit({ kind: "delete", image: state.image, labels: chosen() }) },
  { name: "merge", key: "m", needs: 2, title: "Make one object of the chosen ones", run: () => edit({ kind: "merge", image: state.image, labels: chosen() }) },
  { name: "accept", key: "a", title: "The chosen objects are right; without a choice, all that is in view",
    run: () => edit(view.chosen.size ? { kind: "accept", image: state.image, labels: chosen() } : { kind: "accept", image: state.image, box: inView() }) },
  { name: "image done", key: "r", title: "Everything in this image is right; go on to the next",
    run: async () => { if (await edit({ kind: "accept", image: state.image })) next(); } },
  { name: "undo", key: "z", title: "Take back your last operation on this image", run: () => queue(() => api.post("undo", { image: state.image, who: who() })) },
  { name: "redo", key: "y", title: "Do again what you took back", run: () => queue(() => api.post("redo", { image: state.image, who: who() })) },
];

function inView() {
  const b = view.bounds(), w = view.info.width;
  return [b.y * w, b.x * w, (b.y + b.height) * w, (b.x + b.width) * w].map(Math.round);
}

let before = "outlines";  // how objects were shown before they were hidden
function hide() {
  if (at("mode").value !== "hidden") before = at("mode").value;
  at("mode").value = at("mode").value === "hidden" ? before : "hidden";
  at("mode").onchange();
}

function next() {
  const image = shownImages().find((one) => one.state !== "reviewed");
  if (image) open(image.image);
  else say("Every image has been reviewed.");
}

function showTools() {
  for (const button of at("tools").querySelectorAll("button")) {
    const tool = TOOLS.find((one) => one.name === button.dataset.tool), action = ACTIONS.find((one) => one.name === button.dataset.tool);
    if (tool) button.setAttribute("aria-pressed", tool === tools.tool);
    if (action) button.disabled = !state.image || view.chosen.size < (action.needs ?? 0);
  }
}

function use(name) {
  tools.use(name);
  showTools();
}

function layTools() {
  const button = (one, run) => {
    const key = made("kbd", { textContent: one.key.toUpperCase() });
    key.setAttribute("aria-hidden", "true");
    const made_ = made("button", { title: one.title, onclick: run }, one.name, key);
    made_.setAttribute("aria-keyshortcuts", one.key.toUpperCase());
    made_.dataset.tool = one.name;
    return made_;
  };
  const size = made("input", { type: "range", min: 1, max: 60, step: 0.5, value: tools.radius, title: "Radius of the brush, in pixels: [ and ]" });
  size.setAttribute("aria-label", "Radius of the brush, in pixels");
  size.oninput = () => { tools.radius = Number(size.value); };
  tools.size = size;
  at("tools").append(...TOOLS.map((tool) => button(tool, () => use(tool.name))), size, ...ACTIONS.map((action) => button(action, action.run)));
  showTools();
}

function again() {  // after the connection was lost: others may have changed anything
  load();
  if (state.image) {
    view.changed([0, 0, 1e9, 1e9]);
    listObjects();
  }
}

document.addEventListener("keydown", (event) => {
  if (at("differences").open) return;
  if (event.target.matches("input:not([type=range]):not([type=checkbox]), select") || event.altKey) return;
  const key = event.key.toLowerCase(), isCommand = event.ctrlKey || event.metaKey;
  const action = isCommand
    ? ACTIONS.find((one) => one.name === { z: event.shiftKey ? "redo" : "undo", y: "redo" }[key])
    : ACTIONS.find((one) => one.key === key) ?? (event.key === "Delete" ? ACTIONS[0] : undefined);
  if (action) {
    if (state.image && !event.repeat && view.chosen.size >= (action.needs ?? 0)) action.run();
  } else if (isCommand && key === "a") {
    showChosen(new Set(state.objects.map(({ label }) => label)));
  } else if (isCommand) {
    return;
  } else if (TOOLS.some((tool) => tool.key === key)) {
    use(TOOLS.find((tool) => tool.key === key).name);
  } else if (key === "h") {
    hide();
  } else if (key === "[" || key === "]") {
    tools.radius = Math.max(1, Math.min(60, tools.radius * (key === "]" ? 1.25 : 0.8)));
    tools.size.value = tools.radius;
  } else if (key === "n" || key === "p") {
    step(key === "n" ? 1 : -1);
  } else if (key === "+" || key === "-") {
    view.viewer.viewport.zoomBy(key === "+" ? 1.5 : 1 / 1.5);
  } else if (document.activeElement !== at("viewer") && !document.activeElement.matches("body") && event.key !== "Escape") {
    return;
  } else if (!tools.key(event)) {
    return;
  }
  event.preventDefault();
});

// ------------------------------------------------------------------ jobs

function listJobs() {
  const focused = document.activeElement?.closest("#jobs [data-job]")?.dataset.job;
  const jobs = [...state.jobs.values()].sort((a, b) => b.number - a.number).slice(0, 8);
  at("jobs").replaceChildren(...jobs.map((job) => {
    const isOver = !["queued", "running"].includes(job.state);
    const title = { segment: "Segment", train: "Train" }[job.kind];
    const line = made("div", { className: "bar" }, made("b", { textContent: title }), made("span", { className: "faint", textContent: job.state }));
    if (!isOver) line.append(made("span", { className: "space" }), cancelOf(job));
    const parts = [line];
    if (!isOver) {
      const bar = made("progress", { max: 1, value: job.progress });
      bar.setAttribute("aria-label", `${title}: ${Math.round(100 * job.progress)} %`);
      parts.push(bar);
    }
    if (job.curves.loss?.length > 1) parts.push(curve(job.curves));
    if (job.words) parts.push(made("div", { className: "words", textContent: job.words }));
    if (job.state !== "queued") parts.push(logOf(job));
    return made("div", { className: `job ${job.state}` }, ...parts);
  }));
  at("jobs").querySelector(`[data-job="${focused}"]`)?.focus({ preventScroll: true });
}

function cancelOf({ number }) {
  const button = made("button", { textContent: "Cancel", onclick: () => tried(() => api.remove(`jobs/${number}`)) });
  button.dataset.job = `cancel ${number}`;
  return button;
}

const logs = new Map();  // of jobs whose log is open: number to lines

function logOf({ number }) {
  const lines = made("pre", { textContent: logs.get(number) ?? "", tabIndex: 0 });
  const summary = made("summary", { textContent: "Log" }), log = made("details", { open: logs.has(number) }, summary, lines);
  [summary.dataset.job, lines.dataset.job] = [`log ${number}`, `lines ${number}`];
  log.ontoggle = async () => {
    if (!log.open) return logs.delete(number);
    const job = await tried(() => api.get(`jobs/${number}`));
    logs.set(number, job?.log.join("\n") || "It has said nothing.");
    lines.textContent = logs.get(number);
  };
  return log;
}

function curve({ loss, validation }) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 260 60");
  svg.setAttribute("role", "img");
  const last = Math.max(...loss.map(([x]) => x), 1);
  const high = Math.max(...loss.map(([, y]) => y));
  svg.setAttribute("aria-label", `Loss ${loss.at(-1)[1].toFixed(2)}` + (validation.length ? `, score ${validation.at(-1)[1].toFixed(3)}` : ""));
  for (const [points, scale, colour] of [[loss, high, "var(--faint)"], [validation, 1, "var(--accent)"]]) {
    if (!points.length) continue;
    const line = document.createElementNS(space, "polyline");
    line.setAttribute("points", points.map(([x, y]) => `${4 + (252 * x) / last},${56 - (50 * y) / scale}`).join(" "));
    line.setAttribute("fill", "none");
    line.setAttribute("stroke", colour);
    line.setAttribute("stroke-width", "2");
    svg.append(line);
  }
  return svg;
}

// ------------------------------------------------------------------ files

const uploads = new Uploads({ takes: () => state.session.takes, added: loadSoon });
const addFiles = (files) => uploads.add([...files].filter(isShown));

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, async (event) => {
    event.preventDefault();
    at("middle").classList.toggle("drop", kind === "dragover");
    if (kind !== "drop") return;
    const files = await tried(() => dropped(event.dataTransfer));
    if (files) addFiles(files);
  });
}

// ------------------------------------------------------------------ begin

for (const [button, input] of [["add", "files"], ["add-folder", "folder-files"]]) {
  at(button).onclick = () => at(input).click();
  at(input).onchange = () => { addFiles(at(input).files); at(input).value = ""; };
}
at("remove").onclick = () => tried(() => api.remove(`images?${new URLSearchParams({ name: state.image })}`));
at("sort").onchange = () => sortImages();
at("mode").onchange = () => {
  view.mode = at("mode").value;
  at("opacity").value = view.opacity[view.mode];
  at("opacity").disabled = view.mode === "hidden";
  view.repaint();
};
at("opacity").oninput = () => view.fade(Number(at("opacity").value));
at("class").onchange = () => {
  const class_number = Number(at("class").value);
  if (view.chosen.size) edit({ kind: "class", image: state.image, labels: chosen(), class_number }).then(showClass);
  else state.classOfNew = class_number;
};
whenChosen(tried, say);
const segment = (names) => tried(() => api.post("jobs", { kind: "segment", arguments: names }));
at("segment").onclick = () => segment({ images: [state.image] });
at("segment-all").onclick = () => segment({});
at("train").onclick = () => tried(() => api.post("jobs", { kind: "train", arguments: { minutes: Number(at("minutes").value) } }));
at("demo").onclick = () => tried(async () => { await api.post("demo"); await load(); });
at("export").onchange = () => {
  const { form, all } = at("export").selectedOptions[0].dataset;
  if (form) tried(async () => { say("Exporting …"); await api.save("export", { form, name: all ? "" : state.image }); say("Exported."); });
  at("export").selectedIndex = 0;
};
at("who").value = localStorage.getItem("who") ?? "";
at("who").onchange = () => localStorage.setItem("who", at("who").value.trim());
for (const head of document.querySelectorAll("th button")) {
  head.onclick = () => {
    state.down = state.by === head.dataset.by && !state.down;
    state.by = head.dataset.by;
    showObjects();
  };
}

layTools();
await tried(async () => {
  await api.login();
  await load();
  api.events({
    edit: take,
    job: (job) => {
      state.jobs.set(job.number, job);
      listJobs();
      if (job.state === "done" && job.kind === "train") load();
      if (job.state === "done" && job.kind === "segment") sortImages();
    },
    model: load,
    image: async ({ image }) => { await loadSoon(); if (image === state.image) { view.changed([0, 0, 1e9, 1e9]); listObjects(); } },
  }, again);
});
document.body.dataset.ready = "yes";

// One text at a time. The next rows are fetched ahead, and decisions are sent behind the back of
// the person; what is not confirmed yet stays in localStorage and is sent again.
import "./theme.js";

const $ = id => document.getElementById(id);
const AHEAD = 5;
const FILTER_FROM = 10;
const store = window.localStorage;
const state = { person: "", classes: [], items: [], current: null, since: 0, shown: false,
  unsent: [], sending: false, fetching: false, last: null, undone: null };

function token() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, b => b.toString(16).padStart(2, "0")).join("");
}

async function ask(path, body) {
  const options = body === undefined ? {} :
    { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(value.error || answer.statusText), { status: answer.status });
  return value;
}

function notify(message) {
  $("message").textContent = message;
  $("message").hidden = !message;
}

function save() { store.setItem("valence-unsent", JSON.stringify(state.unsent)); }

async function send() {
  if (state.sending) return;
  state.sending = true;
  while (state.unsent.length) {
    const job = state.unsent[0];
    try {
      await ask(job.path, job.body);
      notify("");
    } catch (error) {
      if (!(error.status >= 400 && error.status < 500)) {
        notify(`${state.unsent.length} not stored yet: the server does not answer; they are sent again.`);
        setTimeout(() => { state.sending = false; send(); }, 1000);
        return;
      }
      notify(error.message);
    }
    state.unsent.shift();
    save();
  }
  state.sending = false;
}

function queue(path, body) {
  state.unsent.push({ path, body });
  save();
  send();
}

async function fetchAhead() {
  if (state.fetching || state.items.length >= AHEAD) return;
  state.fetching = true;
  const have = state.items.map(item => item.row);
  if (state.current) have.push(state.current.row);
  for (const job of state.unsent) if (job.body.row !== undefined) have.push(job.body.row);
  try {
    const items = await ask("/next", { person: state.person, have, count: AHEAD - state.items.length });
    const known = new Set([...have, ...state.items.map(item => item.row)]);
    if (state.current) known.add(state.current.row);
    for (const job of state.unsent) known.add(job.body.row);
    state.items.push(...items.filter(item => !known.has(item.row)));
  } catch (error) {
    if (error.status) notify(error.message);
    else setTimeout(fetchAhead, 1000);
  }
  state.fetching = false;
  if (!state.current) advance();
}

function show(item) {
  state.current = item;
  state.since = performance.now();
  state.shown = false;
  $("text").textContent = item ? item.text : "";
  $("text").dataset.row = item ? item.row : "";
  $("text").scrollTop = 0;
  $("end").hidden = !!item;
  $("hint").hidden = true;
  $("note").value = "";
  if ($("filter").value) { $("filter").value = ""; filter(); }
}

function advance() {
  show(state.items.shift() || null);
  fetchAhead();
}

function decide(action, label = null) {
  const item = state.current;
  if (!item) return;
  const body = { person: state.person, token: token(), row: item.row, action, label,
    seconds: Math.round(performance.now() - state.since) / 1000, suggestion: item.suggestion,
    was_shown: state.shown, note: $("note").value, chosen_by: item.chosen_by };
  state.last = label;
  mark(label);
  queue("/decide", body);  // first: the row must be known as decided before more are fetched
  advance();
  refresh(true);
}

function mark(label) {
  for (const button of $("labels").children) button.classList.toggle("last", button.dataset.label === label);
}

async function undo() {
  await settled();
  try {
    const item = await ask("/undo", { person: state.person, token: token() });
    if (!item) { notify("There is nothing to undo."); return; }
    notify("");
    if (state.current) state.items.unshift(state.current);
    mark(null);
    show(item);
    refresh();
  } catch (error) { notify(error.message); }
}

function settled() {
  return new Promise(done => {
    const look = () => state.unsent.length ? setTimeout(look, 20) : done();
    look();
  });
}

function suggest() {
  const item = state.current;
  if (!item) return;
  state.shown = true;
  $("hint").hidden = false;
  $("hint").textContent = item.suggestion === null ? "No suggestion yet: the model needs labels first."
    : `Suggestion: ${item.suggestion} (${Math.round(item.confidence * 100)}%)`;
}

function toggle(box, button, field) {
  const open = $(box).hidden;
  $(box).hidden = !open;
  $(button).setAttribute("aria-expanded", String(open));
  if (open) $(field).focus(); else $("text").focus();
}

function drawLabels() {
  const buttons = state.classes.map((name, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.label = name;
    if (i < 9) {
      const key = document.createElement("kbd");
      key.textContent = i + 1;
      button.append(key);
    }
    const text = document.createElement("span");
    text.dir = "auto";
    text.textContent = name;
    button.append(text);
    button.addEventListener("click", () => decide("label", name));
    return button;
  });
  $("labels").replaceChildren(...buttons);
  $("filter-box").hidden = state.classes.length < FILTER_FROM;
}

function filter() {
  const words = $("filter").value.trim().toLocaleLowerCase();
  for (const button of $("labels").children)
    button.hidden = words !== "" && !button.dataset.label.toLocaleLowerCase().includes(words);
}

let searchTimer = 0;
async function search() {
  const words = $("search").value.trim();
  const hits = words ? await ask(`/search?q=${encodeURIComponent(words)}`) : [];
  if ($("search").value.trim() !== words) return;
  $("hits").replaceChildren(...hits.map(hit => {
    const entry = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    const text = document.createElement("span");
    text.dir = "auto";
    text.textContent = hit.text.length > 200 ? `${hit.text.slice(0, 200)}…` : hit.text;
    button.append(text);
    if (hit.label) {
      const small = document.createElement("small");
      small.textContent = ` ${hit.label}`;
      button.append(small);
    }
    button.addEventListener("click", () => take(hit.row));
    entry.append(button);
    return entry;
  }));
  if (words && !hits.length) $("hits").textContent = "No row has these words.";
}

async function take(row) {
  const item = await ask("/take", { person: state.person, row });
  if (!item) { notify("Somebody else has labeled this row, or has it in hand."); return; }
  notify("");
  if (state.current) state.items.unshift(state.current);
  show(item);
  toggle("search-box", "search-button", "search");
}

function fact(name, value) {
  const term = document.createElement("dt"), text = document.createElement("dd");
  term.textContent = name;
  text.textContent = value;
  return [term, text];
}

const two = value => value.toFixed(2);
function draw(news) {
  $("progress").max = Math.max(1, news.total);
  $("progress").value = news.decided;
  $("done").textContent = `${news.labeled} of ${news.total} labeled`;
  const facts = [];
  if (news.phase === "preparing") facts.push(fact("Model", `preparing, ${news.message || "reading"}; rows are random until then`));
  if (news.phase === "failed") facts.push(fact("Model", `none: ${news.message}; rows are random`));
  if (news.phase === "ready") facts.push(fact("Model", news.fits ? `fits so far: ${news.fits}` : "needs labels of two classes"));
  if (news.estimate) {
    const e = news.estimate;
    facts.push(fact("Macro-F1", `${two(e.value)}, 95% interval ${two(e.low)} to ${two(e.high)}, from ${e.rows} random rows`));
  } else facts.push(fact("Macro-F1", `unknown until 20 random rows are labeled; ${news.sample} are`));
  if (news.forecast) {
    const f = news.forecast;
    facts.push(fact("More labels", `${f.labels} more: ${f.gain < 0 ? "−" : "+"}${two(Math.abs(f.gain))} ± ${two(f.margin)}`));
  }
  if (news.changed !== null) facts.push(fact("Last fit", `${news.last_labels} labels changed ${news.changed} predictions`));
  if (news.agreement) {
    const a = news.agreement;
    facts.push(fact("Agreement", a.alpha === null ? `${a.rows} shared rows, all of one class`
      : `Krippendorff's α ${two(a.alpha)} on ${a.rows} shared rows, ${a.people} people`));
  }
  facts.push(fact("You", `${news.own} decided${news.people > 1 ? `; ${news.people} people` : ""}`));
  $("facts").replaceChildren(...facts.flat());
  const most = Math.max(1, ...Object.values(news.counts));
  $("counts").replaceChildren(...Object.entries(news.counts).map(([name, count]) => {
    const entry = document.createElement("li"), label = document.createElement("span"),
      meter = document.createElement("meter"), number = document.createElement("b");
    label.dir = "auto";
    label.textContent = name;
    meter.max = most;
    meter.value = count;
    meter.setAttribute("aria-label", `${name}: ${count}`);
    number.textContent = count;
    entry.append(label, meter, number);
    return entry;
  }));
}

let refreshTimer = 0;
function refresh(soon = false) {
  clearTimeout(refreshTimer);
  refreshTimer = setTimeout(async () => {
    try {
      const news = await ask(`/state?person=${encodeURIComponent(state.person)}`);
      draw(news);
      if (!state.current && !state.fetching) fetchAhead();
    } catch { /* send() says so where something is not stored */ }
    refresh(false);
  }, soon === true ? 400 : 3000);
}

function onKey(event) {
  if ($("work").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const field = document.activeElement;
  if (field instanceof HTMLInputElement) {
    if (event.key === "Escape") {
      if (field.id === "filter") { field.value = ""; filter(); }
      field.blur();
    }
    if (event.key === "Enter" && field.id === "filter") {
      const first = [...$("labels").children].find(button => !button.hidden);
      if (first && $("filter").value.trim()) decide("label", first.dataset.label);
      event.preventDefault();
    }
    if (event.key === "Enter" && field.id === "note") field.blur();
    return;
  }
  const place = "123456789".indexOf(event.key);
  const acts = { u: undo, s: () => decide("skip"), x: () => decide("unsure"), h: suggest,
    n: () => toggle("note-box", "note-button", "note"),
    "/": () => toggle("search-box", "search-button", "search"), f: () => $("filter").focus() };
  if (place >= 0 && place < state.classes.length && !event.repeat) decide("label", state.classes[place]);
  else if (acts[event.key.toLowerCase()] && !event.repeat) acts[event.key.toLowerCase()]();
  else return;
  event.preventDefault();
}

async function start(person) {
  state.person = person;
  store.setItem("valence-person", person);
  $("enter").hidden = true;
  $("work").hidden = false;
  $("who").textContent = person;
  const news = await ask(`/state?person=${encodeURIComponent(person)}`);
  state.classes = news.classes;
  drawLabels();
  draw(news);
  state.unsent = JSON.parse(store.getItem("valence-unsent") || "[]");
  await Promise.race([send(), new Promise(done => setTimeout(done, 2000))]);
  await fetchAhead();
  refresh();
}

$("enter").addEventListener("submit", event => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (name) start(name).catch(error => notify(error.message));
});
$("undo").addEventListener("click", undo);
$("skip").addEventListener("click", () => decide("skip"));
$("unsure").addEventListener("click", () => decide("unsure"));
$("suggest").addEventListener("click", suggest);
$("note-button").addEventListener("click", () => toggle("note-box", "note-button", "note"));
$("search-button").addEventListener("click", () => toggle("search-box", "search-button", "search"));
$("filter").addEventListener("input", filter);
$("search").addEventListener("input", () => { clearTimeout(searchTimer); searchTimer = setTimeout(search, 150); });
document.addEventListener("keydown", onKey);
const known = new URLSearchParams(location.search).get("person") || store.getItem("valence-person");
if (known) start(known).catch(error => notify(error.message));
else { $("enter").hidden = false; $("name").focus(); }

// Files: read, sent in parts, shown and given back. The file stays in the browser.

import { ask, bar, clearMessage, DECIMALS, element, given, NONE, show } from "./ask.js";

const AT_ONCE = 2; // requests under way
const PART = 64; // texts of a request, so that the progress moves
const PAGE = 50; // rows shown
const TEXT_NAMES = ["text", "tweet", "review", "sentence", "comment", "content", "message", "body"];
const encoder = new TextEncoder();
let limits = null;
let numeric = false; // a number of every text, no labels
let job = null;

/** Rows of a CSV text; quotes may hold separators, line ends and doubled quotes. */
export function readRows(text) {
  const separator = findSeparator(text);
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  const endCell = () => {
    row.push(cell);
    cell = "";
  };
  const endRow = () => {
    endCell();
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
  };
  for (let i = 0; i < text.length; i++) {
    const letter = text[i];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (text[i + 1] === '"') cell += text[++i];
      else quoted = false;
    } else if (letter === '"' && cell === "") quoted = true;
    else if (letter === separator) endCell();
    else if (letter === "\n") endRow();
    else if (letter !== "\r" || text[i + 1] !== "\n") cell += letter;
  }
  if (cell !== "" || row.length) endRow();
  return rows;
}

function findSeparator(text) {
  const head = text.slice(0, (text.indexOf("\n") + 1 || text.length + 1) - 1).replace(/"[^"]*"/g, "");
  const count = (mark) => head.split(mark).length;
  return ["\t", ";"].reduce((best, mark) => (count(mark) > count(best) ? mark : best), ",");
}

function decode(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes); // what spreadsheets write otherwise
  }
}

async function open(file) {
  stop();
  clearMessage();
  const rows = readRows(decode(await file.arrayBuffer()));
  const [head, ...body] = rows;
  if (!body.length) {
    return show(new Error(`${file.name} has no rows below its heading; give a CSV file with one.`));
  }
  const names = head.map((name, i) => name.trim() || `column ${i + 1}`);
  const cells = body.map((row) => names.map((_, i) => row[i] ?? ""));
  job = { name: file.name, names, rows: cells, column: guess(names, cells) };
  element("column").replaceChildren(...names.map((name, i) => new Option(name, i)));
  element("column").value = job.column;
  element("job").hidden = false;
  element("drop").classList.add("small");
  await run();
}

/** The column that is called like texts, or else holds the longest cells. */
function guess(names, rows) {
  const lower = names.map((name) => name.toLowerCase());
  const called = TEXT_NAMES.map((name) => lower.indexOf(name)).find((i) => i >= 0);
  if (called !== undefined) return called;
  const sample = rows.slice(0, 200);
  const length = names.map((_, i) => sample.reduce((sum, row) => sum + row[i].length, 0));
  return length.indexOf(Math.max(...length));
}

async function run() {
  const own = Object.assign(job, {
    scores: new Array(job.rows.length), done: 0, blank: 0, truncated: 0, filter: null, page: 0,
    stopper: new AbortController(), classes: [],
  });
  element("save").disabled = true;
  element("stop").hidden = false;
  draw();
  const waiting = parts(own);
  const work = async () => {
    for (let part = waiting.shift(); part; part = waiting.shift()) {
      const inputs = part.map(({ text }) => text);
      const answers = await ask("/predict", { inputs }, { signal: own.stopper.signal, patient: true });
      part.forEach(({ row }, i) => (own.scores[row] = answers[i]));
      own.done += part.length;
      if (own === job) draw();
    }
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (own === job) element("save").disabled = false;
  } catch (error) {
    own.stopper.abort();
    show(error);
  }
  if (own === job) {
    element("stop").hidden = true;
    draw();
  }
}

/** Rows with a text, in parts that the server takes. */
function parts(own) {
  const all = [];
  let part = [];
  let bytes = 0;
  own.rows.forEach((cells, row) => {
    let text = cells[own.column];
    if (!text.trim()) return own.blank++;
    if (text.length > limits.text_chars) {
      text = text.slice(0, limits.text_chars).replace(/[\ud800-\udbff]$/, "");
      own.truncated++;
    }
    const size = encoder.encode(JSON.stringify(text)).length + 1;
    if (part.length === Math.min(PART, limits.texts) || bytes + size > limits.body_bytes - 64) {
      if (part.length) all.push(part);
      [part, bytes] = [[], 0];
    }
    part.push({ row, text });
    bytes += size;
  });
  if (part.length) all.push(part);
  return all;
}

function draw() {
  const { rows, scores, done, blank, truncated, filter, name } = job;
  const all = rows.length - blank;
  element("progress").max = Math.max(1, all);
  element("progress").value = done;
  const notes = [`${name}: ${done} of ${all} rows`];
  if (blank) notes.push(`${blank} without a text`);
  if (truncated) notes.push(`${truncated} truncated at ${limits.text_chars} characters`);
  element("count").textContent = notes.join(" · ");
  const counts = new Map();
  for (const row of scores) {
    if (row && !numeric) {
      const { label } = given(row);
      counts.set(label, (counts.get(label) ?? 0) + 1);
    }
  }
  const sorted = [...counts].sort((a, b) => b[1] - a[1]);
  const most = sorted[0]?.[1] ?? 1;
  element("histogram").replaceChildren(
    ...sorted.map(([label, count]) =>
      bar(label, count / most, String(count), {
        best: true,
        pressed: label === filter,
        choose: (chosen) => choose(chosen === filter ? null : chosen),
      }),
    ),
  );
  drawRows();
}

function choose(label) {
  Object.assign(job, { filter: label, page: 0 });
  draw();
  const buttons = [...element("histogram").querySelectorAll("button")];
  (buttons.find((button) => button.dataset.label === label) ?? buttons[0])?.focus();
}

function drawRows() {
  const { rows, scores, column, filter } = job;
  const shown = [];
  scores.forEach((row, i) => {
    if (row && (filter === null || given(row).label === filter)) shown.push(i);
  });
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  job.page = Math.min(job.page, pages - 1);
  const here = shown.slice(job.page * PAGE, (job.page + 1) * PAGE);
  element("rows").replaceChildren(
    ...here.map((i) => {
      const { label, score } = given(scores[i]);
      const line = document.createElement("tr");
      const sure = numeric ? score.toFixed(DECIMALS) : `${(100 * score).toFixed(0)}%`;
      for (const text of [label, sure, rows[i][column]]) {
        const cell = document.createElement("td");
        cell.textContent = text;
        cell.dir = "auto";
        line.append(cell);
      }
      return line;
    }),
  );
  element("scroll").hidden = !here.length;
  element("page").textContent = `${job.page + 1} of ${pages}`;
  element("before").disabled = job.page === 0;
  element("after").disabled = job.page >= pages - 1;
  document.querySelector(".pages").hidden = pages === 1;
}

function turn(step) {
  job.page += step;
  drawRows();
}

/** The rows with label and probabilities, as `valence predict` writes them. */
function scoredFile() {
  const { names, rows, scores } = job;
  const first = scores.find(Boolean) ?? [];
  const classes = first.map(({ label }) => label).sort();
  const added = numeric ? ["intensity"] : ["label", ...classes.map((name) => `prob_${name}`)];
  const columns = names.map((name) => (added.includes(name) ? `${name}_given` : name));
  const lines = [[...columns, ...added]];
  rows.forEach((cells, i) => {
    const byLabel = new Map((scores[i] ?? []).map(({ label, score }) => [label, score]));
    if (numeric) {
      lines.push([...cells, byLabel.get("intensity") ?? ""]);
      return;
    }
    const label = scores[i] ? given(scores[i]).label : NONE;
    lines.push([...cells, label === NONE ? "" : label, ...classes.map((name) => byLabel.get(name) ?? "")]);
  });
  return lines.map((line) => line.map(quoted).join(",") + "\n").join("");
}

/** A cell that a spreadsheet would carry out as a formula is marked as text. */
function safe(text) {
  const isNumber = /^[+-]\d+([.,]\d+)*([eE][+-]?\d+)?%?$/.test(text);
  return /^[=+\-@\t\r＝＋－＠]/.test(text) && !isNumber ? `'${text}` : text;
}

function quoted(value) {
  const text = safe(String(value));
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([scoredFile()], { type: "text/csv" }));
  link.download = `${job.name.replace(/\.[^.]*$/, "")}.scored.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function stop() {
  job?.stopper?.abort();
}

/** Make the part of the page for files work; called again after a key was given. */
export function startFiles(info) {
  const first = limits === null;
  limits = info.limits;
  numeric = info.target === "intensity";
  if (!first) return;
  const drop = element("drop");
  element("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) open(file).catch(show);
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) open(event.dataTransfer.files[0]).catch(show);
    });
  }
  element("column").addEventListener("change", (event) => {
    stop();
    job = { ...job, column: Number(event.target.value) };
    run().catch(show);
  });
  element("stop").addEventListener("click", stop);
  element("save").addEventListener("click", save);
  element("before").addEventListener("click", () => turn(-1));
  element("after").addEventListener("click", () => turn(1));
}

// The page: a text is labeled while it is typed; files are in table.js.

import {
  abstention, ask, bar, clearMessage, DECIMALS, element, given, hasKey, NONE, percent, setKey, show,
} from "./ask.js";
import { startFiles } from "./table.js";
import "./theme.js";

const TYPING = 250; // milliseconds without a key before the text is sent
const SHOWN = 8; // labels, before the rest is shown
const state = { text: "", scores: [], target: null, all: false, explains: true, numeric: false };
let asking = new AbortController();
let timer = 0;

function draw() {
  const { scores, target, all } = state;
  element("result").hidden = !scores.length;
  if (!scores.length) return;
  const best = given(scores);
  const verdict = element("verdict");
  const detail = document.createElement("small");
  if (state.numeric) {
    detail.textContent = best.label;
    verdict.replaceChildren(best.score.toFixed(DECIMALS), detail);
    element("bars").replaceChildren();
    element("all").hidden = true;
    return;
  }
  detail.textContent =
    best.label === NONE ? `the model abstains, ${abstention(scores)}` : percent(best.score);
  verdict.replaceChildren(best.label, detail);
  const shown = all ? scores : scores.slice(0, SHOWN);
  const focused = document.activeElement?.dataset?.label;
  element("bars").replaceChildren(
    ...shown.map(({ label, score }) =>
      bar(label, score, percent(score), {
        best: label === best.label,
        pressed: state.explains && label === target,
        choose: (name) => explain(name),
      }),
    ),
  );
  if (focused !== undefined) {
    [...element("bars").querySelectorAll("button")].find((b) => b.dataset.label === focused)?.focus();
  }
  const rest = scores.length - shown.length;
  element("all").hidden = !rest;
  element("all").textContent = `Show ${rest} more labels`;
}

async function predict() {
  const text = element("text").value;
  if (text === state.text) return;
  asking.abort();
  asking = new AbortController();
  Object.assign(state, { text, target: null });
  if (!text.trim()) {
    state.scores = [];
    draw();
    return;
  }
  const { signal } = asking;
  try {
    const [scores] = await ask("/predict", { inputs: text }, { signal, patient: true });
    clearMessage();
    state.scores = scores;
    state.target = scores[0].label;
    element("why").hidden = true;
    draw();
    if (state.explains) await explain(state.target);
  } catch (error) {
    if (!signal.aborted) state.text = "";
    show(error);
  }
}

async function explain(target) {
  state.target = target;
  draw();
  if (!state.explains) return;
  const { signal } = asking;
  const body = { inputs: state.text, target };
  try {
    const [explanation] = await ask("/explain", body, { signal, patient: true });
    if (target === state.target) drawExplanation(explanation);
  } catch (error) {
    if (error.status !== 501) return show(error);
    state.explains = false;
    element("why").hidden = true;
    element("unexplained").textContent = `No explanation: ${error.message}`;
    element("unexplained").hidden = false;
    draw();
  }
}

function drawExplanation({ text, label, tokens, neighbours }) {
  element("why").hidden = false;
  element("target").textContent = label;
  const letters = Array.from(text); // offsets count characters, not UTF-16 units
  const most = Math.max(1e-9, ...tokens.map(({ score }) => Math.abs(score)));
  const parts = [];
  let at = 0;
  for (const token of [...tokens].sort((a, b) => a.start - b.start)) {
    if (token.start < at || token.end <= token.start) continue;
    parts.push(letters.slice(at, token.start).join(""), marked(letters, token, most));
    at = token.end;
  }
  parts.push(letters.slice(at).join(""));
  element("words").replaceChildren(...parts);
  element("summary").textContent = summary(tokens);
  element("nearest").hidden = !neighbours.length;
  element("examples").replaceChildren(...neighbours.map(example));
}

function marked(letters, { start, end, score }, most) {
  const mark = document.createElement("mark");
  const strength = Math.abs(score) / most;
  const side = score >= 0 ? "for" : "against";
  mark.textContent = letters.slice(start, end).join("");
  mark.title = `${score >= 0 ? "+" : "−"}${Math.abs(score).toFixed(3)}`;
  mark.style.backgroundColor = `rgba(var(--${side}), ${(0.5 * strength).toFixed(3)})`;
  if (strength > 0.15) {
    mark.className = side;
    mark.style.borderBottomColor = `rgba(var(--${side}), ${strength.toFixed(3)})`;
  }
  return mark;
}

function summary(tokens) {
  const strongest = (sign) =>
    tokens
      .filter(({ score }) => sign * score > 0)
      .sort((a, b) => sign * (b.score - a.score))
      .slice(0, 3)
      .map(({ text }) => `“${text.trim()}”`)
      .join(", ");
  const [pro, contra] = [strongest(1), strongest(-1)];
  return [pro && `Supported most by: ${pro}.`, contra && `Contradicted most by: ${contra}.`].filter(Boolean).join(" ");
}

function example({ text, label, similarity }) {
  const item = document.createElement("li");
  const words = document.createElement("p");
  const chip = document.createElement("span");
  const near = document.createElement("span");
  words.textContent = text;
  words.dir = "auto";
  chip.className = "chip";
  chip.textContent = label;
  near.className = "soft";
  near.textContent = `similarity ${similarity.toFixed(2)}`;
  item.append(words, chip, near);
  return item;
}

async function start() {
  try {
    const info = await ask("/info");
    element("lock").hidden = true;
    clearMessage();
    state.numeric = info.target === "intensity";
    if (state.numeric) state.explains = false;
    const gives = state.numeric ? "a number" : `${info.classes.length} labels`;
    element("model").textContent = `${info.model} · ${info.method} · ${gives}`;
    element("version").textContent = `Valence ${info.version}`;
    startFiles(info);
  } catch (error) {
    show(error);
    if (error.status === 401 && !hasKey()) clearMessage(); // the field says it
  }
}

element("text").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(predict, TYPING);
});
element("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  clearTimeout(timer);
  predict();
});
element("all").addEventListener("click", () => {
  state.all = true;
  draw();
});
element("lock").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(element("key").value.trim());
  start();
});
start();

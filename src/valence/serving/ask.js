// How the page asks the server: the key, refusals, a busy server.

const KEY = "valence-key";

export class Refused extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

/** Of a number, as it is shown. */
export const DECIMALS = 3;

/** What stands for the label of a text that the model gives none. */
export const NONE = "(no label)";

/** The label that is given and its probability; of a model that abstains, NONE and the highest. */
export function given(scores) {
  if (scores[0].chosen === undefined) return scores[0];
  return scores.find(({ chosen }) => chosen) ?? { label: NONE, score: scores[0].score };
}

/** Why a model gives a text no label. */
export function abstention(scores) {
  const [first, second] = scores.map(({ label, score }) => `${label} ${(100 * score).toFixed(0)}%`);
  return second ? `not sure enough: ${first}, ${second}` : `not sure enough: ${first}`;
}

export const element = (id) => document.getElementById(id);

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

export const hasKey = () => Boolean(sessionStorage.getItem(KEY));

/** The answer of `path` as JSON; a busy server is retried when it says. */
export async function ask(path, document_, { signal, patient = false } = {}) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = { headers, signal };
  if (document_ !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(document_) });
  }
  for (;;) {
    let answer;
    try {
      answer = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "The server does not respond; is it running?");
    }
    if (answer.ok) return answer.json();
    if (patient && answer.status === 429) {
      const seconds = Number(answer.headers.get("Retry-After")) || 1;
      await pause(seconds * 1000, signal);
      continue;
    }
    const said = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, said.error || `The server answered ${answer.status}`);
  }
}

function pause(milliseconds, signal) {
  return new Promise((done, stopped) => {
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      stopped(new DOMException("stopped", "AbortError"));
    });
  });
}

/** An error as the person sees it: a line above, or the field for the key. */
export function show(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401) {
    element("lock").hidden = false;
    element("key").focus();
  }
  element("message").textContent = error.message;
  element("message").hidden = false;
}

export function clearMessage() {
  element("message").hidden = true;
}

/** A line of a bar chart that can be chosen. */
export function bar(name, fraction, value, { best = false, pressed = false, choose }) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = best ? "best" : "";
  button.setAttribute("aria-pressed", String(pressed));
  button.dataset.label = name;
  const parts = ["name", "track", "value"].map((kind) => {
    const part = document.createElement("span");
    part.className = kind;
    return part;
  });
  const fill = document.createElement("span");
  fill.className = "fill";
  fill.style.width = `${100 * fraction}%`;
  parts[0].textContent = name;
  parts[0].title = name;
  parts[0].dir = "auto";
  parts[1].append(fill);
  parts[2].textContent = value;
  button.append(...parts);
  button.addEventListener("click", () => choose(name));
  item.append(button);
  return item;
}

export function percent(fraction) {
  const value = 100 * fraction;
  if (value > 99.9 && value < 100) return "> 99.9%";
  if (value > 0 && value < 0.1) return "< 0.1%";
  return `${value.toFixed(1)}%`;
}

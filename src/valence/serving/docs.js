// The page of /openapi.json: every address, its fields, its answers; and a way to try it.

const make = (tag, text = "", kind = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
};

// Descriptions are docstrings: code stands between two backticks there.
const plain = (text) => (text ?? "").replaceAll("``", "");

const resolve = (document_, schema) =>
  schema?.$ref ? document_.components.schemas[schema.$ref.split("/").pop()] : schema;

const typeOf = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return schema.const ?? schema.enum?.join(" or ") ?? schema.type ?? "anything";
};

const row = (cells, tag = "td") => {
  const line = make("tr");
  cells.forEach((cell) => line.append(make(tag, cell)));
  return line;
};

const table = (heads, rows) => {
  const body = make("table");
  body.append(row(heads, "th"), ...rows.map((cells) => row(cells)));
  return body;
};

const fields = (schema) =>
  table(
    ["field", "type", "what"],
    Object.entries(schema.properties ?? {}).map(([name, field]) => [
      (schema.required ?? []).includes(name) ? `${name} (required)` : name,
      typeOf(field),
      plain(field.description),
    ]),
  );

const trial = (path, method) => {
  const form = make("form");
  const label = make("label", "Body: ");
  const body = make("textarea");
  body.rows = 2;
  body.value = '{"inputs": "Lovely food"}';
  label.append(body);
  const button = make("button", "Send", "main");
  const result = make("pre");
  result.hidden = true;
  form.append(...(method === "post" ? [label] : []), button, result);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: body.value };
    const answer = await fetch(path, method === "post" ? post : {});
    result.hidden = false;
    result.textContent = `${answer.status}\n${await answer.text()}`;
  });
  return form;
};

const show = (document_, path, method, about) => {
  const card = make("section", "", "card");
  card.append(make("h2", `${method.toUpperCase()} ${path}`), make("p", plain(about.description)));
  const schema = resolve(document_, about.requestBody?.content?.["application/json"]?.schema);
  if (schema) card.append(fields(schema));
  const answers = Object.entries(about.responses ?? {}).map(([status, answer]) => [
    status,
    typeOf(answer.content?.["application/json"]?.schema),
    plain(answer.description),
  ]);
  card.append(table(["status", "type", "when"], answers), trial(path, method));
  return card;
};

try {
  const document_ = await (await fetch("/openapi.json")).json();
  const place = document.getElementById("paths");
  for (const [path, methods] of Object.entries(document_.paths))
    for (const [method, about] of Object.entries(methods))
      place.append(show(document_, path, method, about));
} catch (error) {
  const message = document.getElementById("message");
  message.hidden = false;
  message.textContent = `The API reference cannot be read: ${error.message}`;
}

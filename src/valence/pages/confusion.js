// Which classes are confused: a matrix for each method; a cell shows the cases behind it.
(() => {
  const all = JSON.parse(document.getElementById("confusions").textContent);
  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };

  function draw(box, { classes }, method, out) {
    const table = make("table", undefined, { class: "matrix" });
    const head = table.createTHead().insertRow();
    head.append(make("th", "true \\ predicted", { scope: "col" }));
    classes.forEach((name) => head.append(make("th", name, { scope: "col", dir: "auto" })));
    const body = table.createTBody();
    method.counts.forEach((counts, t) => {
      const total = Math.max(1, counts.reduce((a, b) => a + b, 0));
      const row = body.insertRow();
      row.append(make("th", classes[t], { scope: "row", dir: "auto" }));
      counts.forEach((count, p) => {
        const cell = row.insertCell();
        const part = count / total;
        cell.style.backgroundColor = `rgba(var(--heat), ${(0.55 * part).toFixed(3)})`;
        if (!count) return void (cell.textContent = "0");
        const percent = `${Math.round(100 * part)}%`;
        const words = `${count} rows of ${classes[t]} predicted as ${classes[p]}, ${percent}`;
        const button = make("button", String(count), { type: "button", "aria-label": words, title: words, "aria-pressed": "false" });
        button.addEventListener("click", () => {
          table.querySelectorAll("[aria-pressed=true]").forEach((b) => b.setAttribute("aria-pressed", "false"));
          button.setAttribute("aria-pressed", "true");
          list(out, method, `${t},${p}`, words);
        });
        cell.append(button);
      });
    });
    box.replaceChildren(table);
    out.replaceChildren(make("p", "Choose a cell to read its cases.", { class: "soft" }));
  }

  function list(out, method, cell, words) {
    const cases = method.cases[cell] ?? [];
    const shown = make("ul", undefined, { class: "cases", tabindex: "0", "aria-label": words });
    for (const [id, text, prob] of cases) {
      const item = make("li");
      item.append(make("span", text, { dir: "auto" }), make("span", ` ${prob} · row ${id}`, { class: "soft" }));
      shown.append(item);
    }
    const more = cases.length ? `${cases.length} cases of the first seed; all are in ${method.file}` : `The cases are in ${method.file}`;
    out.replaceChildren(make("p", `${words}. ${more}`, { class: "soft" }), shown);
  }

  for (const box of document.querySelectorAll("[data-confusion]")) {
    const setup = all[Number(box.dataset.confusion)];
    const [select, matrix, out] = [box.querySelector("select"), box.querySelector(".scroll"), box.querySelector(".out")];
    setup.methods.forEach(({ name }, i) => select.append(new Option(name, i)));
    select.value = Math.max(0, setup.methods.findIndex(({ name }) => name === box.dataset.method));
    const show = () => draw(matrix, setup, setup.methods[Number(select.value)], out);
    select.addEventListener("change", show);
    show();
  }
})();

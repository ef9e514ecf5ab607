// Charts of a report: drawn from the data in the page, in its colors, with hover values.
(() => {
  const DARK = {
    "#0072b2": "#56a8e8", "#009e73": "#2cc497", "#d55e00": "#ff8a4c", "#cc79a7": "#e39bc4",
    "#444444": "#c8ccd4", "#b8a800": "#d8c838", "#999999": "#8793a3",
  };
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark";
  const themed = (color) => (isDark() && DARK[color]) || color;

  function trace(own) {
    const shown = structuredClone(own);
    for (const part of [shown.line, shown.marker]) if (part?.color) part.color = themed(part.color);
    return shown;
  }

  const axis = (own) => ({
    ...own, gridcolor: css("--line"), linecolor: css("--soft"), zeroline: false, automargin: true,
    tickfont: { size: 11 }, title: { text: own.title, font: { size: 12 } }, fixedrange: true,
  });

  async function draw(element, chart) {
    const legend = chart.traces.filter((t) => t.showlegend !== false).length;
    const perRow = Math.max(1, Math.floor(element.clientWidth / 230));
    const below = legend > 1 ? 22 * Math.ceil(legend / perRow) : 0;
    const height = 300 + below;
    const layout = {
      height, margin: { l: 52, r: 16, t: 8, b: 48 + below }, barmode: "overlay", hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false,
      font: { color: css("--ink"), family: "system-ui, sans-serif", size: 12 },
      xaxis: axis(chart.xaxis), yaxis: axis(chart.yaxis), showlegend: legend > 1,
      legend: { orientation: "h", y: -0.16 - 0.05, yanchor: "top", x: 0, font: { size: 11 } },
      hoverlabel: { font: { size: 12 } },
    };
    await Plotly.react(element, chart.traces.map(trace), layout, { displayModeBar: false, responsive: false });
    if (chart.names) await Plotly.relayout(element, { annotations: labels(element, chart) });
  }

  // Names beside dots: each where it crosses no dot, no other name and no edge.
  function labels(element, chart) {
    const { l, t, w, h } = element._fullLayout._size;
    const { xaxis, yaxis } = element._fullLayout;
    const place = (a, v) => a.d2p(v);
    const { x, y } = chart.traces[0];
    const dots = x.map((v, i) => ({ x: place(xaxis, v), y: place(yaxis, y[i]) }));
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = "12px system-ui, sans-serif";
    const taken = dots.map((d) => ({ left: d.x - 7, right: d.x + 7, top: d.y - 7, bottom: d.y + 7 }));
    const overlap = (a, b) =>
      Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) *
      Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
    const outside = (b) =>
      Math.max(0, 2 - b.left - l + 40) + Math.max(0, b.right - w - 12) + Math.max(0, -b.top - t) + Math.max(0, b.bottom - h);
    return chart.names.map((name, i) => {
      const width = pen.measureText(name).width + 8;
      let best = null;
      for (const far of [16, 30, 46, 64, 86]) {
        for (let step = 0; step < 12; step++) {
          const angle = (step * Math.PI) / 6;
          const cx = dots[i].x + Math.cos(angle) * (far + width / 2);
          const cy = dots[i].y + Math.sin(angle) * far;
          const box = { left: cx - width / 2, right: cx + width / 2, top: cy - 9, bottom: cy + 9 };
          const cost = 1000 * outside(box) + taken.reduce((sum, b) => sum + overlap(box, b), 0) + far / 100;
          if (!best || cost < best.cost) best = { cost, box, dx: cx - dots[i].x, dy: cy - dots[i].y };
        }
      }
      taken.push(best.box);
      return {
        x: chart.xaxis.type === "log" ? Math.log10(x[i]) : x[i], y: y[i], text: name, showarrow: true,
        arrowhead: 0, arrowwidth: 0.7, arrowcolor: css("--soft"), standoff: 5, ax: best.dx, ay: best.dy,
        font: { size: 12, color: css("--ink") }, borderpad: 1,
      };
    });
  }

  const shown = [...document.querySelectorAll("[data-chart]")];
  const drawAll = () => shown.forEach((element) => draw(element, charts[Number(element.dataset.chart)]));
  drawAll();
  document.addEventListener("themechange", drawAll);
  let timer = 0;
  addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      shown.forEach((element) => Plotly.purge(element));
      drawAll();
    }, 150);
  });
})();

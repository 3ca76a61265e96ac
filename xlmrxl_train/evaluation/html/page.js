"use strict";
// Sorts and groups tables, draws the figures with Plotly, and lists their numbers. Asks nothing of any network.

const say = (text) => { document.getElementById("said").textContent = text; };
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

// ---- tables

function valueOf(row, column) {
  const cell = row.cells[column];
  const text = cell.textContent.trim();
  const number = parseFloat(cell.dataset.value ?? text.replace(/[,+]/g, "").replace(/^\u2212/, "-"));
  return cell.classList.contains("number") ? (Number.isNaN(number) ? null : number) : text;
}

function order(rows, column, direction) {
  return rows.sort((first, second) => {
    const [a, b] = [valueOf(first, column), valueOf(second, column)];
    if (a === null || b === null) return (a === null) - (b === null);  // what has no number comes last
    return direction * (typeof a === "number" ? a - b : a.localeCompare(b));
  });
}

function arrange(table) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const column = headings.findIndex((cell) => cell.getAttribute("aria-sort") !== "none");
  const direction = column >= 0 && headings[column].getAttribute("aria-sort") === "descending" ? -1 : 1;
  let rows = [...body.rows].filter((row) => !row.classList.contains("group"));
  if (column >= 0) rows = order(rows, column, direction);
  const key = table.dataset.grouping;
  if (!key) return body.replaceChildren(...rows);
  const groups = Map.groupBy ? Map.groupBy(rows, (row) => row.dataset[key]) : rows.reduce((found, row) => {
    const name = row.dataset[key];
    return found.set(name, [...(found.get(name) ?? []), row]);
  }, new Map());
  body.replaceChildren(...[...groups].flatMap(([name, members]) => [headOfGroup(table, name, members), ...members]));
}

function headOfGroup(table, name, members) {
  const row = element("tr", { className: "group" });
  const count = members.length === 1 ? "1 language" : `${members.length} languages, mean`;
  row.append(element("th", { scope: "rowgroup", textContent: `${name}: ${count}` }));
  for (let column = 1; column < members[0].cells.length; column += 1) {
    const cells = members.map((member) => member.cells[column]);
    const values = cells.map((cell) => parseFloat(cell.dataset.value)).filter((value) => !Number.isNaN(value));
    const scored = table.tHead.rows[0].cells[column].dataset.scale;
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const text = scored && values.length ? (mean * scored).toFixed(scored === "100" ? 1 : 2) : "";
    row.append(element("td", { className: "number", textContent: text }));
  }
  return row;
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    heading.querySelector("button")?.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const first = heading.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      for (const each of table.tHead.rows[0].cells) each.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", before === first ? other : first);
      arrange(table);
      say(`sorted by ${heading.textContent.trim()}, ${heading.getAttribute("aria-sort")}`);
    });
  }
}
for (const select of document.querySelectorAll("select.grouping")) {
  select.addEventListener("change", () => {
    const table = document.getElementById(select.dataset.table);
    table.dataset.grouping = select.value;
    arrange(table);
    say(select.value ? `grouped by ${select.selectedOptions[0].textContent}` : "not grouped");
  });
}

// ---- figures

const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = () => document.documentElement.clientWidth < 560;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const named = (text) => ({ text, font: { size: narrow() ? 11 : 13, color: colour("quiet") }, standoff: 8 });

function layoutOf(figure, extra) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true, fixedrange: narrow() };
  const { xaxis, yaxis, ...rest } = extra;
  return {
    font: { family: "system-ui, 'Noto Sans', sans-serif", size: narrow() ? 11 : 13, color: colour("ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 8, r: 8, t: 8, b: 8 }, showlegend: false, dragmode: narrow() ? false : "zoom",
    hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("line"), font: { color: colour("ink") } },
    xaxis: { ...axis, title: named(figure.x), ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
  };
}

const dashes = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

// Colour and dash tell groups apart; of one group, the lines. A legend has each name once.
function linesOf(figure) {
  const alone = new Set(figure.lines.map((line) => line.name)).size === 1;
  const names = new Set();
  const data = figure.lines.map((line, position) => {
    const look = figure.several ? line.group : position;
    const named = figure.several ? (figure.lines.some((each) => each.dash) ? `${line.label}: ${line.name}` : line.label) : line.name;
    const first = !names.has(named) && names.add(named);
    return {
      type: "scatter", mode: line.x.length < 30 ? "lines+markers" : "lines", name: named, legendgroup: named,
      showlegend: Boolean(first), x: line.x, y: line.y, marker: { size: 5 },
      line: { width: 2, color: colour(`series-${look % 6}`), dash: dashes[(figure.several ? line.dash || line.group : look) % 6] },
      hovertemplate: `${figure.several && named === line.label && !alone ? `${line.name} ` : ""}${figure.percent ? "%{y:.1%}" : "%{y:.4~g}"}`,
    };
  });
  const legend = names.size > 1;
  const width = [...names].reduce((sum, name) => sum + 6 * name.length + 52, 0);
  const room = document.querySelector(`#${figure.id} .plot`).clientWidth - 24;
  const below = legend ? 20 * Math.ceil(width / room) + 4 : 0;
  const layout = layoutOf(figure, {
    height: 280 + below, hovermode: "x unified", showlegend: legend,
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, font: { size: 11 } },
    margin: { l: 8, r: 12, t: 8, b: 44 + below },
    yaxis: { tickformat: figure.percent ? ".0%" : figure.lines[0].y.every((y) => Math.abs(y) < 1e-3) ? ".2~e" : ",~g", rangemode: figure.percent ? "tozero" : "normal" },
  });
  return { data, layout };
}

function sharesOf(counts) {
  return counts.map((row) => {
    const sum = row.reduce((total, count) => total + count, 0);
    return row.map((count) => (sum ? count / sum : null));
  });
}

// Two layers, so that a number is light on dark cells and dark on light ones.
function heatOf(figure, choice) {
  const percent = choice.shares || choice.percent;
  const z = choice.shares ? sharesOf(choice.z) : choice.z;
  const values = z.flat().filter((value) => value !== null);
  const [low, high] = choice.shares ? [0, 1] : [Math.min(...values), Math.max(...values)];
  const place = (value) => (choice.reverse ? high - value : value - low) / (high - low || 1);
  const strong = (value) => place(value) > (dark.matches ? 0.56 : 0.68);
  const room = choice.x.length <= (narrow() ? 6 : 14);
  const digits = percent ? (narrow() ? ":.0%" : ":.1%") : ":.2f";
  const layer = (kept, ink, showscale) => ({
    type: "heatmap", x: choice.x, y: choice.y, customdata: choice.z, xgap: 2, ygap: 2, hoverongaps: false,
    z: z.map((row) => row.map((value) => (value !== null && kept(value) ? value : null))), zmin: low, zmax: high,
    texttemplate: room ? `%{z${digits}}` : "", textfont: { color: ink }, reversescale: Boolean(choice.reverse),
    hovertemplate: `%{y}<br>${figure.x} %{x}: %{z:${percent ? ".1%" : ".4~g"}}${choice.shares ? " (%{customdata})" : ""}<extra></extra>`,
    colorscale: [[0, colour("heat-low")], [0.5, colour("heat-middle")], [1, colour("heat-high")]], showscale,
    colorbar: { thickness: 10, outlinewidth: 0, tickformat: percent ? ".0%" : "~g" },
  });
  const [onLow, onHigh] = dark.matches ? ["#f5f5f0", "#0b1016"] : ["#14171c", "#ffffff"];
  const data = [layer((value) => !strong(value), onLow, !narrow()), layer(strong, onHigh, false)];
  const each = choice.y.length <= 6 ? 44 : narrow() ? 22 : 26;
  const layout = layoutOf(figure, {
    height: Math.max(260, 90 + choice.y.length * each),
    xaxis: { type: "category", showgrid: false, title: named(figure.x) },
    yaxis: { type: "category", autorange: "reversed", showgrid: false, title: named(choice.shares ? figure.y : "") },
  });
  return { data, layout };
}

const chosen = (figure) => figure.choices[Number(document.querySelector(`#${figure.id} select.choice`)?.value ?? 0)];
const drawingOf = (figure) => (figure.kind === "lines" ? linesOf(figure) : heatOf(figure, chosen(figure)));

async function draw(figure) {
  const place = document.querySelector(`#${figure.id} .plot`);
  if (!place.clientWidth) return null;  // a window of no width, as some have while they are photographed
  const { data, layout } = drawingOf(figure);
  place.style.height = `${layout.height}px`;  // which Plotly takes when the width changes
  return Plotly.react(place, data, layout, { responsive: true, displayModeBar: false, displaylogo: false });
}

function table(figure) {
  let header, rows;
  if (figure.kind === "lines") {
    const steps = [...new Set(figure.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const byStep = figure.lines.map((line) => new Map(line.x.map((x, position) => [x, line.y[position]])));
    header = [figure.x, ...figure.lines.map((line) => (figure.several ? `${line.label}, ${line.name}` : line.name))];
    rows = steps.map((step) => [step, ...byStep.map((values) => values.get(step) ?? "")]);
  } else {
    const choice = chosen(figure);
    header = [`${figure.y} by ${figure.x}`, ...choice.x];
    rows = choice.y.map((name, position) => [name, ...choice.z[position].map((value) => value ?? "")]);
  }
  const made = element("table", {}, element("caption", { className: "hidden", textContent: figure.title }));
  made.append(element("thead", {}, element("tr", {}, ...header.map((name) => element("th", { scope: "col", textContent: name })))));
  made.append(element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((value, position) => (
    position ? element("td", { className: "number", textContent: value }) : element("th", { scope: "row", textContent: value })))))));
  const scroll = element("div", { className: "scroll", tabIndex: 0 }, made);
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", `Numbers of ${figure.title}`);
  return scroll;
}

function connect(figure) {
  const root = document.getElementById(figure.id);
  const numbers = root.querySelector(".numbers");
  const list = () => { if (numbers.open) numbers.replaceChildren(numbers.querySelector("summary"), table(figure)); };
  numbers.addEventListener("toggle", list);
  root.querySelector("select.choice")?.addEventListener("change", () => {
    root.querySelector(".caption").textContent = chosen(figure).caption;
    root.querySelector(".plot").setAttribute("aria-label", `${figure.title}, ${chosen(figure).name}. ${chosen(figure).caption}`);
    draw(figure);
    list();
  });
  for (const button of root.querySelectorAll("[data-save]")) {
    button.addEventListener("click", async () => {
      const { data, layout } = drawingOf(figure);
      const choice = figure.choices ? `-${chosen(figure).name}` : "";
      const filename = `${figure.title}${choice}`.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/-$/, "");
      const solid = { ...layout, paper_bgcolor: colour("raised"), margin: { l: 16, r: 16, t: 16, b: 16 } };
      await Plotly.downloadImage({ data, layout: solid }, { format: button.dataset.save, filename, width: 900, height: Math.max(450, layout.height), scale: 2 });
      say(`${filename}.${button.dataset.save} is saved`);
    });
  }
}

function excuse(place, error) {
  place.textContent = `This browser cannot draw the figure (${error}).`;
  console.error(error);
}

async function library() {
  const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = element("script", { textContent: await new Response(stream).text() });
  document.head.append(script);
}

library().then(async () => {
  figures.forEach(connect);
  const results = await Promise.allSettled(figures.map(draw));
  results.forEach(({ reason }, position) => { if (reason) excuse(document.querySelector(`#${figures[position].id} .plot`), reason); });
  document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");  // where Plotly measures texts
  let before = narrow();
  dark.addEventListener("change", () => figures.forEach(draw));
  addEventListener("resize", () => {
    if (narrow() !== before) { before = narrow(); figures.forEach(draw); }
  });
  document.documentElement.dataset.drawn = figures.length;
}).catch((error) => document.querySelectorAll(".plot").forEach((place) => excuse(place, error)));

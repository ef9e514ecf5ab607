// The files the page reads and writes: CSV, TSV, JSONL and the first sheet of an XLSX workbook.

import { strFromU8, strToU8, unzipSync, zipSync } from "./fflate.js";

const KINDS = "CSV, TSV, JSONL or XLSX";
const FOREIGN = { "%PDF": "a PDF file", "PAR1": "a Parquet file", "\xd0\xcf\x11\xe0": "an old Excel or Word file (.xls, .doc)", "\x1f\x8b": "a compressed file", "\x89PNG": "a picture" };
const DATE_FORMATS = new Set([14, 15, 16, 17, 22]);
const DAY = 86_400_000; // milliseconds

/** {kind, names, rows} of a file; cells as they are, null where empty. Throws what a person reads. */
export function readTable(name, bytes, readRows) {
  const kind = kindOf(name, bytes);
  const table = kind === "xlsx" ? readSheet(name, bytes) : kind === "jsonl" ? readLines(name, decode(bytes)) : readRows(decode(bytes));
  if (kind === "jsonl") return { kind, ...table };
  const [head = [], ...rows] = table;
  const names = head.map((cell, i) => String(cell ?? "").trim() || `column ${i + 1}`);
  return { kind, names, rows: rows.map((row) => names.map((_, i) => row[i] ?? null)) };
}

function kindOf(name, bytes) {
  const start = String.fromCharCode(...bytes.subarray(0, 4));
  const refuse = (what) => {
    throw new Error(`${name} is ${what}. The page reads ${KINDS}: save it as one of these.`);
  };
  if (start.startsWith("PK")) return "xlsx";
  for (const [mark, what] of Object.entries(FOREIGN)) if (start.startsWith(mark)) refuse(what);
  const wide = start.startsWith("\xff\xfe") || start.startsWith("\xfe\xff");
  if (!wide && bytes.subarray(0, 8192).includes(0)) refuse("not a text file");
  return /\.(jsonl|ndjson)$/i.test(name) ? "jsonl" : "csv";
}

function decode(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return new TextDecoder("utf-16be").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes); // what spreadsheets write otherwise
  }
}

function readLines(name, text) {
  const records = [];
  text.split("\n").forEach((line, i) => {
    if (!line.trim()) return;
    let record = null;
    try {
      record = JSON.parse(line);
    } catch {
      // the next line says it
    }
    if (record === null || typeof record !== "object" || Array.isArray(record)) throw new Error(`${name}: line ${i + 1} is no JSON object.`);
    records.push(record);
  });
  const names = [...new Set(records.flatMap(Object.keys))];
  return { names, rows: records.map((record) => names.map((key) => record[key] ?? null)) };
}

function readSheet(name, bytes) {
  let files;
  try {
    files = unzipSync(bytes, { filter: (file) => /^xl\/(workbook|sharedStrings|styles)\.xml$|^xl\/_rels|^xl\/worksheets\//.test(file.name) });
  } catch {
    files = {};
  }
  const xml = (path) => (files[path] ? new DOMParser().parseFromString(strFromU8(files[path]), "application/xml") : null);
  const book = xml("xl/workbook.xml");
  if (!book) throw new Error(`${name} is no Excel workbook that can be read. The page reads ${KINDS}.`);
  const all = (node, tag) => [...(node?.getElementsByTagNameNS("*", tag) ?? [])];
  const id = all(book, "sheet")[0]?.getAttributeNS("http://schemas.openxmlformats.org/officeDocument/2006/relationships", "id");
  const target = all(xml("xl/_rels/workbook.xml.rels"), "Relationship").find((one) => one.getAttribute("Id") === id)?.getAttribute("Target") ?? "worksheets/sheet1.xml";
  const sheet = xml(target.startsWith("/") ? target.slice(1) : `xl/${target}`);
  const words = (node) => all(node, "t").filter((t) => t.parentNode.localName !== "rPh").map((t) => t.textContent).join("");
  const strings = all(xml("xl/sharedStrings.xml"), "si").map(words);
  const styles = xml("xl/styles.xml");
  const custom = new Set(all(styles, "numFmt").filter((f) => /[dmy]/i.test(f.getAttribute("formatCode").replace(/"[^"]*"|\[[^\]]*\]/g, ""))).map((f) => Number(f.getAttribute("numFmtId"))));
  const dates = all(all(styles, "cellXfs")[0], "xf").map((xf) => {
    const format = Number(xf.getAttribute("numFmtId"));
    return DATE_FORMATS.has(format) || custom.has(format);
  });
  const value = (cell) => {
    const kind = cell.getAttribute("t");
    if (kind === "inlineStr") return words(cell);
    const raw = all(cell, "v")[0]?.textContent;
    if (raw === undefined || raw === "") return null;
    if (kind === "s") return strings[Number(raw)] ?? "";
    if (kind === "str" || kind === "e" || kind === "d") return raw;
    if (kind === "b") return raw === "1";
    const number = Number(raw);
    if (!dates[Number(cell.getAttribute("s"))]) return number;
    return new Date(Math.round((number - 25569) * DAY)).toISOString().replace(/T00:00:00\.000Z$|\.000Z$/, "").replace("T", " ");
  };
  return all(sheet, "row").map((row) => {
    const cells = [];
    all(row, "c").forEach((cell, i) => {
      const letters = /^[A-Z]+/.exec(cell.getAttribute("r") ?? "")?.[0];
      const column = letters ? [...letters].reduce((sum, l) => 26 * sum + l.charCodeAt(0) - 64, 0) - 1 : i;
      cells[column] = value(cell);
    });
    return Array.from(cells, (cell) => cell ?? null);
  });
}

/** Lines of JSON, one object a row; empty cells are null. */
export function linesOf(heads, rows) {
  return rows.map((row) => `${JSON.stringify(Object.fromEntries(heads.map((head, i) => [head, row[i] ?? null])))}\n`).join("");
}

const escape = (text) =>
  text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "").replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** A workbook of one sheet. Texts are texts: nothing is carried out as a formula. */
export function workbookOf(heads, rows) {
  const cell = (value) => {
    if (value === null || value === undefined || value === "") return "<c/>";
    if (typeof value === "number") return `<c><v>${value}</v></c>`;
    if (typeof value === "boolean") return `<c t="b"><v>${Number(value)}</v></c>`;
    const text = typeof value === "string" ? value : JSON.stringify(value);
    return `<c t="inlineStr"><is><t xml:space="preserve">${escape(text)}</t></is></c>`;
  };
  const lines = [heads, ...rows].map((row) => `<row>${row.map(cell).join("")}</row>`).join("");
  const start = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>';
  const main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
  const office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
  const parts = "http://schemas.openxmlformats.org/package/2006";
  const type = "application/vnd.openxmlformats-officedocument.spreadsheetml";
  const relation = (kind, target) => `${start}<Relationships xmlns="${parts}/relationships"><Relationship Id="rId1" Type="${office}/${kind}" Target="${target}"/></Relationships>`;
  const files = {
    "[Content_Types].xml": `${start}<Types xmlns="${parts}/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="${type}.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="${type}.worksheet+xml"/></Types>`,
    "_rels/.rels": relation("officeDocument", "xl/workbook.xml"),
    "xl/workbook.xml": `${start}<workbook xmlns="${main}" xmlns:r="${office}"><sheets><sheet name="Scored" sheetId="1" r:id="rId1"/></sheets></workbook>`,
    "xl/_rels/workbook.xml.rels": relation("worksheet", "worksheets/sheet1.xml"),
    "xl/worksheets/sheet1.xml": `${start}<worksheet xmlns="${main}"><sheetData>${lines}</sheetData></worksheet>`,
  };
  return zipSync(Object.fromEntries(Object.entries(files).map(([path, text]) => [path, strToU8(text)])));
}

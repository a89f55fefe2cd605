// The search page: form → /api/v1/search → list. What the server returns came from strangers, so it goes into the page
// through textContent and nothing else. The address bar holds the whole search, so that it can be shared.
"use strict";

const PAGE = 100;             // hits asked for at a time
const PREVIEW_CHARS_MAX = 600; // of a message in the list; all of it is in the detail
const ATTRIBUTES_MAX = 12;    // of an event in the list; more do not fit the widest screen

const $ = (id) => document.getElementById(id);
const [form, q, level, range, from, to] = ["search", "q", "level", "range", "from", "to"].map($);
const [hits, status, error, warning] = ["hits", "status", "error", "warning"].map($);
const [empty, older, custom] = ["empty", "older", "custom"].map($);

let shown = null; // the search whose hits are shown: {parameters, cursor, count, warnings}
let running = null; // AbortController of the request under way

// === address bar ⇄ form ===

function readAddress() {
  const address = new URLSearchParams(location.search);
  q.value = address.get("q") ?? "";
  level.value = address.get("level") ?? "";
  const start = address.get("from") ?? "-15m";
  const known = [...range.options].some((option) => option.value === start) && !address.has("to");
  range.value = known ? start : "custom";
  from.value = known ? "" : toLocal(start);
  to.value = address.has("to") ? toLocal(address.get("to")) : "";
  custom.hidden = known;
}

function writeAddress() {
  const address = new URLSearchParams();
  if (q.value.trim()) address.set("q", q.value.trim());
  if (level.value) address.set("level", level.value);
  const { from: start, to: end } = times();
  if (start !== "-15m") address.set("from", start);
  if (end) address.set("to", end);
  const text = address.size ? `?${address}` : location.pathname;
  if (text !== location.search) history.pushState(null, "", text);
}

function times() {
  if (range.value !== "custom") return { from: range.value, to: "" };
  const utc = (input, otherwise) => (input.value ? new Date(input.value).toISOString() : otherwise);
  return { from: utc(from, "-15m"), to: utc(to, "") };
}

// An <input type=datetime-local> takes local time without a zone.
function toLocal(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return "";
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

// === searching ===

// What stands before the text that the reader wrote.
const prefix = () => (level.value ? `level>=${level.value} (` : "");

function expression() {
  const text = q.value.trim();
  if (!level.value) return text;
  return text ? `${prefix()}${text})` : `level>=${level.value}`;
}

// The server counts columns in the whole expression, the reader in the box.
function inBox(message) {
  return message.replace(/^q: /, "").replace(/ at column (\d+)/, (_, column) => ` at column ${Math.max(1, column - prefix().length)}`);
}

async function search() {
  writeAddress();
  const parameters = { q: expression(), ...times(), limit: String(PAGE) };
  hits.classList.add("busy");
  const found = await ask(parameters);
  hits.classList.remove("busy");
  if (!found) return;
  hits.replaceChildren();
  // The answer's from and to are absolute: older pages belong to the same stretch of time.
  shown = { parameters: { ...parameters, from: found.from, to: found.to }, cursor: null, count: 0, warnings: new Set() };
  show(found);
}

async function showOlder() {
  if (!shown?.cursor) return;
  older.disabled = true;
  const found = await ask({ ...shown.parameters, cursor: shown.cursor });
  older.disabled = false;
  if (found) show(found);
}

async function ask(parameters) {
  running?.abort();
  const mine = (running = new AbortController());
  error.hidden = true;
  status.textContent = "Searching …";
  try {
    const response = await fetch(`/api/v1/search?${new URLSearchParams(parameters)}`, { signal: mine.signal });
    const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
    if (!response.ok) throw new Error(answer.error ?? `the server answered ${response.status}`);
    return answer;
  } catch (problem) {
    if (mine.signal.aborted) return null;
    const offline = problem instanceof TypeError;
    error.textContent = offline ? "The server does not answer. Is it running?" : inBox(problem.message);
    empty.hidden = true;
    error.hidden = false;
    warning.hidden = true;
    status.textContent = "";
    return null;
  }
}

function show(found) {
  hits.append(...found.hits.map(row));
  shown.cursor = found.cursor;
  shown.count += found.hits.length;
  for (const what of found.warnings ?? []) shown.warnings.add(what);
  warning.textContent = `This is not all: ${[...shown.warnings].join("; ")}`;
  warning.hidden = shown.warnings.size === 0;
  older.hidden = !found.cursor;
  // A page without hits may be followed by others: the index looks at so many events at a time.
  empty.hidden = shown.count > 0 || Boolean(found.cursor);
  const events = `${shown.count}${found.cursor ? "+" : ""} event${shown.count === 1 ? "" : "s"}`;
  status.textContent = `${events} between ${clock(found.from)} and ${clock(found.to)}, newest first · ${found.took_ms} ms`;
}

// === one hit ===

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function row(hit) {
  const item = element("li", "hit");
  item.dataset.level = hit.level;
  const details = element("details");
  const summary = element("summary");
  const time = element("time", "", clock(hit.time));
  time.dateTime = hit.time;
  time.title = hit.time;
  const line = element("span", "line");
  line.append(element("span", "message", hit.message.trimStart().split("\n", 1)[0].slice(0, PREVIEW_CHARS_MAX)));
  for (const [key, value] of preview(hit.attributes)) {
    line.append(" ", element("span", "key", `${key}=`), element("span", "value", text(value).slice(0, 120)));
  }
  const service = element("span", "service", hit.service);
  service.title = hit.service;
  summary.append(time, element("span", "level", hit.level === "unspecified" ? "–" : hit.level), service, line);
  details.append(summary);
  // Details are built when they are opened: a page has a hundred hits and few are looked into.
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(detail(hit));
  });
  item.append(details);
  return item;
}

// The line is short: what the event says comes first, where it was in the program last or in the detail alone.
function preview(attributes) {
  const entries = Object.entries(attributes).filter(([key]) => !/^(code|thread)\.|^span\.name$/.test(key));
  const late = ([key]) => (key === "span.path" || key.startsWith("exception.") ? 1 : 0);
  return entries.sort((a, b) => late(a) - late(b)).slice(0, ATTRIBUTES_MAX);
}

function detail(hit) {
  const box = element("div", "detail");
  box.append(element("pre", "", hit.message));
  const table = element("table", "fields");
  const own = { time: hit.time, level: hit.level, service: hit.service, target: hit.target, trace_id: hit.trace_id, span_id: hit.span_id };
  fields(table, "Event", Object.entries(own).filter(([, value]) => value), new Set(["time"]));
  fields(table, "Attributes", flat(hit.attributes), new Set());
  fields(table, "Resource", flat(hit.resource), new Set());
  fields(table, "Id", [["id", hit.id]], new Set(["id"]));
  box.append(table);
  return box;
}

function fields(table, title, entries, plain) {
  if (!entries.length) return;
  const head = table.insertRow();
  const th = element("th", "", title);
  th.colSpan = 3;
  head.append(th);
  for (const [key, value] of entries) {
    const line = table.insertRow();
    const act = line.insertCell();
    act.className = "act";
    if (!plain.has(key)) {
      act.append(button("+", "Search for this value", () => refine("", key, value)));
      act.append(button("−", "Search without this value", () => refine("not ", key, value)));
    }
    const name = line.insertCell();
    name.className = "name";
    name.textContent = key;
    const cell = line.insertCell();
    cell.className = "value";
    cell.textContent = text(value);
  }
}

function button(label, title, action) {
  const made = element("button", "", label);
  made.type = "button";
  made.title = title;
  made.addEventListener("click", action);
  return made;
}

// A nested attribute is searched by its dotted path.
function flat(attributes, prefix = "") {
  return Object.entries(attributes).flatMap(([key, value]) =>
    value !== null && typeof value === "object" && !Array.isArray(value) ? flat(value, `${prefix}${key}.`) : [[prefix + key, value]],
  );
}

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function refine(not, key, value) {
  const term = `${not}${bare(key) ? key : quote(key)}=${bare(text(value)) ? text(value) : quote(text(value))}`;
  const before = q.value.trim();
  // `a or b` and a further term: the term concerns both sides.
  q.value = before ? `${/\bor\b/i.test(before) ? `(${before})` : before} ${term}` : term;
  search();
}

const bare = (word) => /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/.test(word) && !/^(and|or|not|exists)$/i.test(word);
const quote = (word) => `"${word.replace(/[\\"]/g, "\\$&")}"`;

// 2026-03-01T12:30:00.123456789Z → 03-01 14:30:00.123 in the reader's time zone.
function clock(time) {
  const date = new Date(time);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const ms = String(date.getMilliseconds()).padStart(3, "0");
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

// === events ===

form.addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
level.addEventListener("change", search);
range.addEventListener("change", () => {
  custom.hidden = range.value !== "custom";
  if (range.value !== "custom") search();
});
older.addEventListener("click", showOlder);
$("help-open").addEventListener("click", (event) => {
  const help = $("help");
  help.hidden = !help.hidden;
  event.currentTarget.setAttribute("aria-expanded", String(!help.hidden));
});
addEventListener("popstate", () => {
  readAddress();
  search();
});
readAddress();
search();

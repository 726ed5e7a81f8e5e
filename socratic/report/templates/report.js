"use strict";
// Shows the problems that stand in #data. Text from there becomes text nodes and attributes that cannot run, nothing else.

const { runs, problems } = JSON.parse(document.getElementById("data").textContent);
const [form, list, detail, count, help] = ["filters", "list", "detail", "count", "help"].map((id) => document.getElementById(id));
const LONGEST = 20000; // characters of one text that are shown at once

let current = null; // the open problem
let chosen = []; // of each run, the sample shown

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const plain = (answer) => (typeof answer === "string" ? answer : answer.flatMap((piece) => (typeof piece === "string" ? piece : piece[0])).join(""));
const unseen = (text) => make("span", { class: "unseen" }, text);
const verdict = (right) => make("span", { class: right ? "right" : "wrong" }, right ? "✓" : "✗");

// --- The list ---------------------------------------------------------------------------------------------------------

for (const problem of problems) {
  const said = problem.right.map((right, place) => `${runs[place].name} ${right ? "right" : "wrong"}`).join(", ");
  const verdicts = make("span", { class: "verdicts", "aria-hidden": "true", title: said }, ...problem.right.map(verdict));
  problem.row = make(
    "a",
    { href: addressOf(problem.id) },
    make("span", { class: "id" }, make("span", {}, problem.id), verdicts),
    make("span", { class: "start", dir: "auto" }, problem.question.slice(0, 160)),
    unseen(said),
  );
}
list.append(...problems.map((problem) => problem.row));
const byId = new Map(problems.map((problem) => [problem.id, problem]));

function searched(problem) {
  problem.text ??= [
    [problem.id, problem.question, problem.context, ...problem.choices, problem.answer],
    ...problem.runs.flat().map((sample) => [...sample.steps.flatMap(([asked, answer]) => [asked, plain(answer)]), sample.answer ?? ""]),
  ].flat().join("\n").toLowerCase();
  return problem.text;
}

// Words, each of which must occur, and phrases in quotation marks.
const wordsOf = (text) => (text?.toLowerCase().match(/"[^"]+"|\S+/g) ?? []).map((word) => word.replace(/^"(.+)"$/, "$1"));

function matches(problem, filters) {
  const text = filters.get("q");
  const steps = filters.get("steps");
  const stop = filters.get("stop");
  return (
    runs.every((_, place) => !filters.get(`r${place}`) || filters.get(`r${place}`) === (problem.right[place] ? "right" : "wrong")) &&
    (!steps || problem.gold?.length === Number(steps)) &&
    (!stop || problem.runs.flat().some((sample) => sample.stop === stop)) &&
    wordsOf(text).every((word) => searched(problem).includes(word))
  );
}

function filtersGiven() {
  const given = new URLSearchParams(new FormData(form));
  for (const [name, value] of [...given]) if (!value) given.delete(name);
  return given;
}

function filter() {
  const filters = filtersGiven();
  let found = 0;
  for (const problem of problems) {
    const fits = matches(problem, filters);
    problem.row.hidden = !fits;
    found += fits;
  }
  count.textContent = `${found} of ${problems.length} problems`;
}

// --- The address: #id?filters -------------------------------------------------------------------------------------------

function addressOf(id, filters = new URLSearchParams()) {
  return `#${encodeURIComponent(id).replaceAll("%2F", "/")}${filters.toString() && `?${filters}`}`;
}

// Another problem is another entry of the history, other filters are not.
function writeAddress() {
  const filters = filtersGiven();
  if (!current && !filters.toString() && !location.hash) return;
  const address = addressOf(current?.id ?? "", filters);
  const isOther = addressOf(current?.id ?? "") !== (location.hash || "#").split("?", 1)[0];
  if (isOther) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}

function readAddress() {
  const [written, filters] = location.hash.slice(1).split("?", 2);
  let id = written;
  try {
    id = decodeURIComponent(written);
  } catch {
    // not written by this page: no problem's address
  }
  const problem = byId.get(id);
  if (id && !problem) {
    if (!document.getElementById(id)) lost(id);
    return; // else a place in the page
  }
  if (filters !== undefined) {
    form.reset();
    for (const [name, value] of new URLSearchParams(filters)) {
      const field = form.elements.namedItem(name);
      if (field) field.value = value;
    }
  }
  filter();
  if (problem) open(problem);
}

// --- One problem --------------------------------------------------------------------------------------------------------

function open(problem) {
  current?.row.removeAttribute("aria-current");
  if (current !== problem) chosen = runs.map(() => 0);
  current = problem;
  problem.row.setAttribute("aria-current", "true");
  problem.row.scrollIntoView({ block: "nearest" });
  show();
  writeAddress();
  detail.querySelector("h3").focus({ preventScroll: true });
  detail.scrollIntoView({ block: "nearest" });
  if (detail.getBoundingClientRect().top < 0 || detail.getBoundingClientRect().top > innerHeight / 2) detail.scrollIntoView();
}

function lost(id) {
  current?.row.removeAttribute("aria-current");
  current = null;
  detail.replaceChildren(text("p", `There is no problem ${id} on this page.`));
}

function show() {
  const { id, question, context, choices, answer, gold } = current;
  const moves = [["Previous", -1, "k"], ["Next", 1, "j"]].map(([name, by, key]) => {
    const button = make("button", { type: "button", "aria-keyshortcuts": key }, name);
    button.addEventListener("click", () => move(by));
    return button;
  });
  const back = make("button", { type: "button" }, "List");
  back.addEventListener("click", () => current.row.focus());
  const statement = make("div", { class: "statement" });
  if (context) statement.append(text("p", context));
  statement.append(text("p", question), ...choices.map((choice, place) => text("p", `(${String.fromCharCode(65 + place)}) ${choice}`)));
  const goldBlock = make("div", { class: "gold" }, make("h4", {}, `Gold: ${answer}`));
  if (gold) {
    const steps = make("details", {}, make("summary", {}, `${gold.length} gold step${gold.length === 1 ? "" : "s"}`), stepsOf(gold, null, null));
    steps.open = innerWidth > 640;
    goldBlock.append(steps);
  }
  const samples = current.runs.map((all, place) => all[chosen[place]]);
  const columns = samples.map((sample, place) => column(sample, place, forkOf(samples, place)));
  detail.replaceChildren(
    make("div", { class: "head" }, make("h3", { tabindex: "-1" }, id), back, ...moves),
    statement,
    goldBlock,
    make("div", { class: "columns" }, ...columns),
  );
}

function column(sample, place, fork) {
  const { name, place: arm } = runs[place];
  const head = make("div", { class: "head" }, make("span", { class: `chip arm-${arm}`, "aria-hidden": "true" }), make("h4", {}, name));
  const all = current.runs[place];
  if (all.length > 1) {
    const options = all.map((one, k) => make("option", { value: k }, `sample ${k} ${one.right ? "✓" : "✗"}`));
    const select = make("select", { "aria-label": `sample of ${name}` }, ...options);
    select.value = chosen[place];
    select.addEventListener("change", () => {
      chosen[place] = Number(select.value);
      show();
      detail.querySelectorAll(".column")[place].querySelector("select").focus();
    });
    head.append(select);
  }
  head.append(make("span", { class: `verdict ${sample.right ? "right" : "wrong"}` }, sample.right ? "✓ right" : "✗ wrong"));
  const answer = sample.answer === null ? "no final answer" : `#### ${sample.answer}`;
  const final = text("p", answer);
  if (fork?.step === sample.steps.length) final.prepend(forkMark(fork), " ");
  const strict = sample.strict === sample.right ? "" : `, strict ${sample.strict ? "right" : "wrong"}`;
  const facts = [
    `read ${sample.read ?? "nothing"}: ${sample.reason}${strict}`,
    `stopped: ${sample.stop}`,
    `calculator ${sample.calculator ? "on" : "off"}`,
    `${sample.tokens} tokens, ${sample.seconds} s`,
    ...(all.length > 1 ? [`majority ${current.right[place] ? "right" : "wrong"}`] : []),
    ...(sample.error ? [`error: ${sample.error}`] : []),
  ];
  return make(
    "section",
    { class: `column arm-${arm}`, "aria-label": name },
    head,
    stepsOf(sample.steps, sample.off, fork),
    ...(sample.rejected ? [text("p", `dropped: ${sample.rejected}`, "facts")] : []),
    final,
    text("p", facts.join(" · "), "facts"),
  );
}

function stepsOf(steps, off, fork) {
  const items = steps.map(([asked, answer], place) => {
    const item = make("li", {});
    const at = fork?.step === place ? fork : null;
    const number = steps.length > 1 || asked ? place + 1 : "";
    if (asked) item.append(slot(`Q${number}`, [asked], at?.part === 0 ? at : null, "asked"));
    item.append(slot(`A${number}`, typeof answer === "string" ? [answer] : answer, at?.part === 1 ? at : null, ""));
    if (off?.[0] === place) item.append(make("p", { class: "off" }, `✗ the first result that is not gold's: ${off[1]}`));
    return item;
  });
  return make("ol", { class: "steps" }, ...items);
}

function slot(tag, pieces, fork, kind) {
  const body = make("div", { class: `text ${kind}`, dir: "auto" });
  fill(body, pieces, fork, LONGEST);
  return make("div", { class: "slot" }, make("span", { class: "tag" }, tag), body);
}

function text(tag, content, kind = "") {
  const element = make(tag, { class: `text ${kind}`, dir: "auto" });
  fill(element, [content], null, LONGEST);
  return element;
}

// Pieces into an element: calculator marks set apart, wrong ones with the right result, the fork where it belongs.
function fill(element, pieces, fork, limit) {
  let place = 0;
  const put = (string) => {
    const inside = fork && place <= fork.offset && fork.offset < place + string.length ? fork.offset - place : -1;
    const parts = inside < 0 ? [string] : [string.slice(0, inside), string.slice(inside)];
    parts.forEach((part, i) => {
      if (i) element.append(forkMark(fork), " ");
      const words = part.split(/(<<[^<>=]*=[^<>=]*>>)/); // every second one is a mark
      element.append(...words.map((word, k) => (k % 2 ? make("span", { class: "sum" }, word) : word)));
    });
    place += string.length;
  };
  for (const piece of pieces) {
    if (place >= limit) break;
    if (typeof piece === "string") {
      put(piece.slice(0, limit - place));
    } else {
      if (fork && place <= fork.offset && fork.offset < place + piece[0].length) element.append(forkMark(fork), " ");
      element.append(make("mark", { class: "failed" }, unseen("wrong: "), piece[0]), make("span", { class: "fix" }, ` ✗ ${piece[1]} `));
      place += piece[0].length;
    }
  }
  const length = plain(pieces).length;
  if (length > place) {
    const more = make("button", { type: "button" }, `… show all ${length.toLocaleString("en")} characters`);
    more.addEventListener("click", () => {
      element.replaceChildren();
      fill(element, pieces, fork, Infinity);
    });
    element.append(more);
  }
}

// --- Where two transcripts part -----------------------------------------------------------------------------------------

const shape = ({ steps }) => (steps.length === 0 ? "answer" : steps.some(([asked]) => asked) ? "questions" : "chain");

// The first word in which a run's transcript differs from that of the first run of the same shape; null where none does.
function forkOf(samples, place) {
  const first = samples.findIndex((other) => shape(other) === shape(samples[place]));
  if (first === place) return null;
  const [mine, theirs] = [samples[place], samples[first]];
  const from = runs[first].name;
  for (let step = 0; step < mine.steps.length; step++) {
    if (step >= theirs.steps.length) return { step, part: mine.steps[step][0] ? 0 : 1, offset: 0, from };
    for (const part of [0, 1]) {
      const [a, b] = [plain(mine.steps[step][part]), plain(theirs.steps[step][part])];
      if (a !== b) return { step, part, offset: commonWords(a, b), from };
    }
  }
  const ends = mine.steps.length !== theirs.steps.length || mine.answer !== theirs.answer;
  return ends ? { step: mine.steps.length, from } : null;
}

function commonWords(a, b) {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  const start = a.lastIndexOf(" ", length) + 1;
  return Math.min(start, Math.max(0, a.length - 1));
}

function forkMark({ from }) {
  return make("span", { class: "fork", title: `differs from ${from} from here` }, make("span", { "aria-hidden": "true" }, "≠"), unseen(`differs from ${from} from here`));
}

// --- Keys and controls --------------------------------------------------------------------------------------------------

function move(by) {
  const found = problems.filter((problem) => !problem.row.hidden);
  const focused = found.findIndex((problem) => problem.row === document.activeElement);
  const place = focused >= 0 ? focused : found.indexOf(current);
  const next = found[place < 0 ? 0 : place + by];
  if (next) open(next);
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape" && typing) typing.blur();
  if (typing || help.open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
  else if (event.key === "/") form.elements.q.focus();
  else if (event.key === "?") help.showModal();
  else return;
  event.preventDefault();
});

let waiting;
form.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    filter();
    writeAddress();
  }, 80);
});
form.addEventListener("reset", () => setTimeout(() => (filter(), writeAddress())));
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", readAddress);

const THEMES = { "": "as the system", light: "light", dark: "dark" };
const themeButton = document.getElementById("theme");
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  themeButton.textContent = `Theme: ${THEMES[theme]}`;
}
function storedTheme() {
  try {
    return localStorage.getItem("socratic-theme") in THEMES ? localStorage.getItem("socratic-theme") : "";
  } catch {
    return ""; // storage is refused to some local files
  }
}
themeButton.addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const theme = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
  setTheme(theme);
  try {
    localStorage.setItem("socratic-theme", theme);
  } catch {
    // it then holds for this visit
  }
});
document.getElementById("help-open").addEventListener("click", () => help.showModal());

document.querySelector(".tools").hidden = false;
form.hidden = detail.hidden = false;
setTheme(storedTheme());
filter();
readAddress();

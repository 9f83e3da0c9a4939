// The review page: one conversation at a time, one key per verdict. Whatever a reload could lose is in sessionStorage
// (the reviewer's name, an unsaved edit) or in the address (the conversation).

import { get, post } from "./api.js";
import { openForm, readForm, showFacts, showTurns, showVerdicts } from "./dialogue.js";
import { showPicture, stepSlice, toggleOutlines } from "./picture.js";

const find = (id) => document.getElementById(id);
const state = { file: "", first: null, reviewer: null, item: null, editing: false, busy: false };

const draftKey = (id) => `draft ${state.file} ${state.reviewer} ${id}`;
const say = (text) => (find("status").textContent = text);

function complain(error) {
  find("error").hidden = !error;
  find("error").textContent = error?.message ?? "";
}

// One request at a time: a second key press while the first is on its way is ignored.
async function during(work) {
  if (state.busy) return;
  state.busy = true;
  try {
    await work();
  } catch (error) {
    complain(error);
  } finally {
    state.busy = false;
  }
}

// Showing ----------------------------------------------------------------------------------------------------------

async function show(id) {
  const item = await get("item", { id, reviewer: state.reviewer });
  state.item = item;
  history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  complain(null);
  find("main").hidden = false;
  find("note").value = item.own?.note ?? "";
  showPicture(item);
  showFacts(item);
  showProgress(item.progress);
  find("position").textContent = `${item.position} of ${item.progress.total}`;
  find("previous").disabled = item.previous === null;
  find("next").disabled = item.next === null;
  leaveForm();
  const draft = JSON.parse(sessionStorage.getItem(draftKey(id)) ?? "null");
  if (draft) {
    edit(draft.turns, draft.note);
    say("Your unsaved edit is back.");
  }
}

function leaveForm() {
  state.editing = false;
  showTurns(state.item);
  showVerdicts(state.item, (texts) => edit(texts));
  showButtons();
}

function showButtons() {
  find("judging").hidden = state.editing;
  find("editing").hidden = !state.editing;
}

function showProgress({ total, accepted, edited, rejected }) {
  const done = accepted + edited + rejected;
  find("bar").max = total;
  find("bar").value = done;
  find("counts").textContent = `${done} of ${total}: ${accepted} accepted, ${edited} edited, ${rejected} rejected`;
}

async function showColleagues() {
  const { total, done } = await get("state");
  const others = Object.entries(done).filter(([name]) => name.toLowerCase() !== state.reviewer.toLowerCase());
  find("colleagues").textContent = others.map(([name, count]) => `${name} ${count} of ${total}`).join(", ");
}

// Doing ------------------------------------------------------------------------------------------------------------

function edit(turns = state.item.own?.after ?? state.item.turns, note = find("note").value) {
  state.editing = true;
  complain(null);
  say("");
  find("note").value = note;
  showButtons();
  openForm(turns);
}

function cancel() {
  sessionStorage.removeItem(draftKey(state.item.id));
  complain(null);
  leaveForm();
  find("edit").focus();
  say("The edit was dropped.");
}

const judge = (verdict) =>
  during(async () => {
    const { id } = state.item;
    const turns = verdict === "edit" ? readForm() : null;
    const answer = await post("verdicts", { reviewer: state.reviewer, id, verdict, turns, note: find("note").value });
    sessionStorage.removeItem(draftKey(id));
    document.activeElement?.blur();
    await show(answer.next ?? id);
    say(answer.next ? `Saved: ${verdict}.` : "Saved. You have reviewed everything.");
    await showColleagues();
  });

const move = (id) => id !== null && during(async () => (await show(id), say("")));

const toUnreviewed = () =>
  during(async () => {
    const { id } = await get("next", { reviewer: state.reviewer, after: state.item.id });
    if (id === null) return say("You have reviewed everything.");
    await show(id);
    say("");
  });

const ACTIONS = {
  accept: () => judge("accept"),
  edit: () => edit(),
  reject: () => judge("reject"),
  save: () => judge("edit"),
  cancel,
  previous: () => move(state.item.previous),
  next: () => move(state.item.next),
  unreviewed: toUnreviewed,
};

const KEYS = {
  a: ACTIONS.accept,
  e: ACTIONS.edit,
  r: ACTIONS.reject,
  n: toUnreviewed,
  m: () => say(toggleOutlines()),
  t: () => find("note").focus(),
  "[": () => stepSlice(-1),
  "]": () => stepSlice(1),
  ArrowLeft: ACTIONS.previous,
  ArrowUp: ACTIONS.previous,
  ArrowRight: ACTIONS.next,
  ArrowDown: ACTIONS.next,
};

// Keys -------------------------------------------------------------------------------------------------------------

function pressed(event) {
  if (!state.item || find("ask").open || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const inText = event.target.matches("textarea, input[type=text]");
  if (state.editing) {
    const onButton = event.target.matches("button");
    if (event.key === "Escape") take(event, cancel);
    else if (event.key === "Enter" && !event.shiftKey && !onButton) take(event, ACTIONS.save);
  } else if (inText) {
    if (event.key === "Enter" || event.key === "Escape") take(event, () => event.target.blur());
  } else if (Object.hasOwn(KEYS, event.key) && !event.repeat && !(event.target.type === "range" && event.key.startsWith("Arrow"))) {
    take(event, KEYS[event.key]);
  }
}

function take(event, action) {
  event.preventDefault();
  action();
}

function keepDraft() {
  if (!state.editing) return;
  sessionStorage.setItem(draftKey(state.item.id), JSON.stringify({ turns: readForm(), note: find("note").value }));
}

// Starting ---------------------------------------------------------------------------------------------------------

function askName(known) {
  find("known").replaceChildren(...known.map((name) => Object.assign(document.createElement("option"), { value: name })));
  find("name").value = state.reviewer ?? "";
  find("ask").showModal();
  return new Promise((resolve) => {
    find("ask").addEventListener("close", () => resolve(find("name").value.trim() || state.reviewer), { once: true });
  });
}

async function begin(name) {
  state.reviewer = name;
  sessionStorage.setItem("reviewer", name);
  find("reviewer").textContent = name;
  const wanted = decodeURIComponent(location.hash.slice(1));
  const first = (await get("next", { reviewer: name })).id ?? state.first;
  try {
    await show(wanted || first);
  } catch (error) {
    if (!wanted) throw error;
    await show(first); // the address names a conversation of another file
  }
  await showColleagues();
}

async function start() {
  const { file, first, reviewer, logged_in: loggedIn, done } = await get("state");
  Object.assign(state, { file, first });
  find("change").disabled = Boolean(loggedIn);
  find("file").textContent = file;
  document.title = `${file} · MedSeg-QA review`;
  let name = loggedIn ? reviewer : (sessionStorage.getItem("reviewer") ?? reviewer);
  while (!name) name = await askName(Object.keys(done));
  await begin(name);
}

async function changeName() {
  const { done } = await get("state");
  const name = await askName(Object.keys(done));
  if (name && name !== state.reviewer) await begin(name);
}

for (const [id, action] of Object.entries(ACTIONS)) find(id).addEventListener("click", () => action());
find("change").addEventListener("click", () => during(changeName));
document.addEventListener("keydown", pressed);
document.addEventListener("input", keepDraft);
window.addEventListener("hashchange", () => move(decodeURIComponent(location.hash.slice(1))));
during(start);

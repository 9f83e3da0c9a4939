// The conversation as text or as a form, and what has been said about it.

const find = (id) => document.getElementById(id);
const WORDS = { accept: "accepted", edit: "edited", reject: "rejected" };

export function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

// Text -------------------------------------------------------------------------------------------------------------

export function showTurns(item) {
  const texts = item.own?.after ?? item.turns;
  find("turns").replaceChildren(...item.turns.map((turn, n) => turnEntry(item, turn, texts[n])));
}

function turnEntry(item, turn, text) {
  const entry = element("li", "");
  entry.append(element("p", "question", text.question || "(empty: every structure is asked for)"));
  if (text.question !== turn.question) entry.append(element("p", "was", "was: ", element("del", "", turn.question)));
  entry.append(element("p", "answer", ...marked(item, turn, text.answer)));
  if (text.answer !== turn.answer) entry.append(element("p", "was", "was: ", element("del", "", turn.answer)));
  const about = [turn.kind.replaceAll("_", " ")];
  if (turn.absent.length) about.push(`not present: ${turn.absent.join(", ")}`);
  if (turn.fact) about.push(`from the fact ${turn.fact}`);
  entry.append(element("p", "kind", about.join(" · ")));
  return entry;
}

// `<p>liver</p> [SEG]` becomes a mark in the colour of its outline; the n-th mark belongs to the turn's n-th target.
function marked(item, turn, answer) {
  let n = 0;
  return answer.split(/(<p>.*?<\/p> \[SEG\])/).map((piece) => {
    const phrase = /^<p>(.*?)<\/p> \[SEG\]$/.exec(piece);
    if (!phrase) return piece;
    const mark = element("mark", "", phrase[1]);
    const label = turn.targets[n++]?.label;
    mark.style.setProperty("--colour", item.targets.find((target) => target.label === label)?.colour ?? "#aab4bd");
    return mark;
  });
}

export function showFacts(item) {
  const parts = [item.modality, item.dataset, `patient ${item.patient_id}`, item.split, item.id];
  find("facts").textContent = parts.join(" · ");
}

export function showVerdicts(item, useEdit) {
  const { own, others } = item;
  find("own").hidden = !own;
  find("own").replaceChildren(...(own ? [verdictLine("You", own)] : []));
  if (own?.after) find("own").append(element("p", "", "Your edit is shown; accepting would keep the original text."));
  find("others").hidden = !others.length;
  find("others").replaceChildren(...others.flatMap((entry) => [verdictLine(entry.reviewer, entry), ...editLines(item, entry, useEdit)]));
  for (const verdict of Object.keys(WORDS)) {
    find(verdict).classList.toggle("given", own?.verdict === verdict);
    find(verdict).setAttribute("aria-pressed", String(own?.verdict === verdict));
  }
}

function verdictLine(who, entry) {
  const word = element("strong", entry.verdict, WORDS[entry.verdict]);
  const when = element("time", "", new Date(entry.time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }));
  when.dateTime = entry.time;
  return element("p", "", element("strong", "", who), " ", word, " · ", when, entry.note ? ` · “${entry.note}”` : "");
}

function editLines(item, entry, useEdit) {
  if (!entry.after) return [];
  const lines = entry.after.flatMap((text, n) => {
    const before = item.turns[n];
    return ["question", "answer"].filter((part) => text[part] !== before[part]).map((part) => element("p", "", `${part} ${n + 1}: ${text[part]}`));
  });
  const button = element("button", "", `Use ${entry.reviewer}'s edit`);
  button.type = "button";
  button.addEventListener("click", () => useEdit(entry.after));
  return [...lines, button];
}

// Form -------------------------------------------------------------------------------------------------------------

export function openForm(texts) {
  const entries = texts.map((text, n) =>
    element("li", "", field(`Question ${n + 1}`, "question", text.question), field(`Answer ${n + 1}; keep each <p>…</p> [SEG]`, "answer", text.answer)),
  );
  find("turns").replaceChildren(...entries);
  const first = find("turns").querySelector("textarea");
  first.focus();
  first.setSelectionRange(first.value.length, first.value.length);
}

function field(caption, name, value) {
  const area = Object.assign(document.createElement("textarea"), { name, value, rows: Math.ceil((value.length + 1) / 60), spellcheck: true });
  return element("label", "", caption, area);
}

export function readForm() {
  return [...find("turns").children].map((entry) => ({
    question: entry.querySelector("[name=question]").value,
    answer: entry.querySelector("[name=answer]").value,
  }));
}

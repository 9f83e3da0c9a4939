// How numbers of a reply are said. Plain functions of plain values.

/** Confidence is the estimated probability that an expert would agree with the outline (Dice of 0.7 or more). */
export function confidenceInWords(confidence) {
  const word =
    confidence >= 0.85
      ? "very likely right"
      : confidence >= 0.65
        ? "probably right"
        : confidence >= 0.4
          ? "uncertain"
          : "doubtful";
  return `${word}, ${Math.round(100 * confidence)} %`;
}

export function confidenceLevel(confidence) {
  return confidence >= 0.65 ? "high" : confidence >= 0.4 ? "middle" : "low";
}

/** The size of a finding: ml, mm² or cm², or pixels where the image does not say how large they are. */
export function sizeInWords({ volume_ml: ml, area_mm2: mm2, area_px: px }) {
  if (Number.isFinite(ml)) return `${rounded(ml)} ml`;
  if (Number.isFinite(mm2)) return mm2 >= 1000 ? `${rounded(mm2 / 100)} cm²` : `${rounded(mm2)} mm²`;
  if (Number.isFinite(px)) return `${px.toLocaleString("en")} pixels (no spacing known)`;
  return "";
}

function rounded(value) {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return Number(value.toFixed(digits)).toLocaleString("en");
}

export function queueInWords(place) {
  if (!place) return "Waiting for the model.";
  return place === 1 ? "One question is ahead of yours." : `${place} questions are ahead of yours.`;
}

/** "left kidney", "left kidney and spleen", "a, b and c". */
export function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/** Cut an answer into pieces of {text} and {text, n}: where the phrase (else the label) of finding n stands. */
export function pieces(answer, findings) {
  const marks = [];
  const free = (from, to) => marks.every((mark) => to <= mark.from || from >= mark.to);
  for (const { n, phrase, label } of findings) {
    for (const words of [phrase, label]) {
      const place = words && places(answer, words).find(([from, to]) => free(from, to));
      if (!place) continue;
      marks.push({ from: place[0], to: place[1], n });
      break;
    }
  }
  marks.sort((a, b) => a.from - b.from);
  const cut = [];
  let at = 0;
  for (const { from, to, n } of marks) {
    if (from > at) cut.push({ text: answer.slice(at, from) });
    cut.push({ text: answer.slice(from, to), n });
    at = to;
  }
  if (at < answer.length) cut.push({ text: answer.slice(at) });
  return cut;
}

function places(text, words) {
  const pattern = words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return [...text.matchAll(new RegExp(`(?<![\\p{L}\\p{N}])${pattern}(?![\\p{L}\\p{N}])`, "giu"))].map((m) => [
    m.index,
    m.index + m[0].length,
  ]);
}

// Waiting for the viewer to be ready: a condition is looked at again and again, on a slow machine for longer.

const AGAIN_MS = 50;

/** What `check` gives as soon as that is something; an `Error` saying `sentence` after `ms`. */
export async function until(check, ms, sentence) {
  const end = performance.now() + ms;
  for (;;) {
    const found = check();
    if (found) return found;
    if (performance.now() > end) throw new Error(sentence);
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

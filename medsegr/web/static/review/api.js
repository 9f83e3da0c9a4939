// Requests to the server that this module came from. A refusal is an Error with the server's sentence.

const base = new URL("../", import.meta.url); // …/medsegr/review/

export function address(path, query = {}) {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(query)) if (value !== null) url.searchParams.set(name, value);
  return url;
}

export const get = (path, query) => reply(fetch(address(path, query), { cache: "no-store" }));

export const post = (path, body) =>
  reply(fetch(address(path), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }));

async function reply(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Error("The server does not answer; what you wrote is still here, try again.");
  }
  const data = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(data.detail ?? `The server answered ${response.status}.`);
  return data;
}

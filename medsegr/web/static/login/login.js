// A link from another site opens our pages without the cookie; this request, from our own page, has it.

const { me, next } = document.getElementById("script").dataset;
const reply = await fetch(me, { headers: { Accept: "application/json" } }).catch(() => null);
if (reply?.ok) location.replace(next);

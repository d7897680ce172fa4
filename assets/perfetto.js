// "Open in Perfetto": the window is opened by the press itself, or browsers block it; the trace
// follows once the server has handed it to this page. Runs once; `element` and `trigger` are
// Gradio's. The protocol: "PING" until the other window says "PONG", then the trace as a buffer.
const PING_MS = 100, PATIENCE_MS = 60_000;
const OFFLINE = "This computer is offline, so Perfetto cannot be reached. Save the trace instead.";
let opened = null, origin = "", said = "", run = "";

const parts = () => [element.querySelector("button"), element.querySelector(".note")];
const show = () => {
  const [button, note] = parts();
  if (!button) return;
  if (button.dataset.run !== run) [run, said] = [button.dataset.run, ""];
  const off = button.dataset.off || (navigator.onLine ? "" : OFFLINE);
  const text = said || off || button.dataset.note;
  if (button.disabled !== !!off) button.disabled = !!off;
  if (note.textContent !== text) note.textContent = text;
};
const say = (text) => { said = text; show(); };

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.disabled) return;
  origin = new URL(button.dataset.address).origin;
  opened = window.open(button.dataset.address, "_blank");
  if (!opened) return say("The browser blocked the new window. Allow it for this page and press again.");
  say("Waiting for Perfetto…");
  trigger("select", {});
});

const answered = (other) => new Promise((resolve) => {
  const begin = performance.now();
  const end = (done) => { clearInterval(timer); removeEventListener("message", hear); resolve(done); };
  const hear = (event) => { if (event.source === other && event.data === "PONG") end(true); };
  const timer = setInterval(() => {
    if (other.closed || performance.now() - begin > PATIENCE_MS) end(false);
    else other.postMessage("PING", origin);
  }, PING_MS);
  addEventListener("message", hear);
});

// What the server made: a file of Gradio's, or nothing and why.
addEventListener("trace-for-perfetto", async ({ detail: [file, why] }) => {
  const other = opened;
  opened = null;
  if (!other) return;
  if (!file) { other.close(); return say(why); }
  const one = Array.isArray(file) ? file[0] : file;
  const [answer, ready] = await Promise.all([fetch(one.url), answered(other)]);
  if (!ready) return say("Perfetto did not answer. Save the trace and open it there by hand.");
  if (!answer.ok) return say("The trace could not be read from this server. Press again.");
  const buffer = await answer.arrayBuffer();
  other.postMessage({ perfetto: { buffer, title: one.orig_name, fileName: one.orig_name } }, origin, [buffer]);
  say("");
});

for (const change of ["online", "offline"]) addEventListener(change, () => say(""));
// Gradio changes attributes in place where the markup stays alike.
new MutationObserver(show).observe(element, { childList: true, subtree: true, attributes: true });
show();

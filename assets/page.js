// What Gradio's own fields lack. Runs once when the page is loaded.
() => {
  // Gradio's audio fields take only what the browser calls audio, and browsers call every webm and
  // mp4 a video, also one that holds nothing but sound. So the file gets the type of a sound before
  // the field sees it; the app reads the sound of either.
  const KINDS = {
    webm: "audio/webm", mp4: "audio/mp4", m4a: "audio/mp4", opus: "audio/ogg", ogg: "audio/ogg",
    flac: "audio/flac", mp3: "audio/mpeg", aac: "audio/aac", wav: "audio/wav",
  };
  const kind = (file) => KINDS[file.name.toLowerCase().split(".").pop()];
  const isField = (input) => input?.type === "file" && input.accept.includes("audio/");
  const needed = (files) => [...files].some((file) => !file.type.startsWith("audio/") && kind(file));
  const relabelled = (files) => {
    const all = new DataTransfer();
    for (const file of files) {
      const type = file.type.startsWith("audio/") ? file.type : kind(file) || file.type;
      all.items.add(new File([file], file.name, { type }));
    }
    return all.files;
  };
  // The first to hear of it: Gradio listens at the field itself.
  document.addEventListener("change", (event) => {
    const input = event.target;
    if (isField(input) && needed(input.files)) input.files = relabelled(input.files);
  }, true);
  document.addEventListener("drop", (event) => {
    const area = event.target.closest?.(".upload-container");
    const input = area?.querySelector("input[type=file]");
    if (!isField(input) || !needed(event.dataTransfer.files)) return;
    event.preventDefault();
    event.stopPropagation();
    area.dispatchEvent(new DragEvent("dragleave")); // else the field goes on looking dragged over
    input.files = relabelled(event.dataTransfer.files);
    input.dispatchEvent(new Event("change"));
  }, true);
  // The system's own window offers these files too.
  document.addEventListener("click", (event) => {
    const input = event.target;
    if (isField(input) && !input.accept.includes(".webm")) {
      input.accept += "," + Object.keys(KINDS).map((ending) => "." + ending).join(",");
    }
  }, true);

  // A label names the first control in it, which is the copy button where a text box has one.
  const name = () => {
    for (const box of document.querySelectorAll("label textarea:not([aria-label])")) {
      const title = box.closest("label").querySelector("[data-testid=block-info]");
      if (title) box.setAttribute("aria-label", title.textContent.trim());
    }
  };

  // Tabs have an address: ?tab=profile, and ?run=KEY of the run that is open. Back and forward work.
  const tabs = () => [...document.querySelectorAll("[role=tab]")].filter((tab) => !tab.closest("#profile-sections"));
  const word = (tab) => tab.textContent.trim().toLowerCase();
  const open = (name) => tabs().find((tab) => word(tab) === name)?.click();
  const linked = () => {
    const said = new URLSearchParams(location.search);
    return said.get("tab") || (said.has("run") ? "profile" : "transcribe");
  };
  let last = "transcribe", wanted = linked();
  addEventListener("popstate", () => open(last = linked()));
  const remember = () => {
    const chosen = tabs().find((tab) => tab.getAttribute("aria-selected") === "true");
    if (!chosen) return;
    if (wanted) {
      last = wanted;
      wanted = "";
      open(last);
      return;
    }
    const here = new URL(location), name = word(chosen);
    const run = name === "profile" && document.querySelector("#profile-runs button[aria-current]");
    if (name !== "profile") here.searchParams.delete("run");
    if (run) here.searchParams.set("run", run.dataset.key);
    if (name !== last) {
      here.searchParams.set("tab", last = name);
      history.pushState(history.state, "", here);
    } else if (here.href !== location.href) history.replaceState(history.state, "", here);
  };

  // ?view=api and ?view=settings: Gradio takes such a dialog for open and loads its code at a press
  // only. So the first press closes what is not there, and the second opens it.
  const view = { api: ".show-api", settings: ".settings" }[new URLSearchParams(location.search).get("view")];
  const button = view && document.querySelector("footer " + view);
  for (let press = 0; button && press < 2; press++) button.click();

  // Its API page asks for what this server leaves out. Said here, the "no" is no error in the console.
  const ask = window.fetch;
  const left = ["/monitoring/summary"];
  if (!window.gradio_config?.mcp_server) left.push("/gradio_api/mcp/schema");
  window.fetch = (what, ...how) => left.some((path) => String(what).endsWith(path))
    ? Promise.resolve(new Response("", { status: 404 })) : ask(what, ...how);

  // Whoever presses a button at once means what was just said: the microphone is stopped, and its
  // recording waited for until the recorder has sent it and goes. For files Gradio waits by itself.
  const shown = (button) => button.offsetParent !== null;
  const buttons = (kind) => [...document.querySelectorAll("[data-testid=microphone-waveform]")]
    .flatMap((wave) => [...wave.parentElement.querySelectorAll("button" + kind)]).filter(shown);
  const recorded = () => buttons("").length && !buttons(".record-button").length;
  const SENT_WITHIN_MS = 60_000; // nothing else tells that a recorder will never send
  window.recordingSent = async () => {
    for (const stop of buttons("[class*=stop-button]")) stop.click();
    const since = performance.now();
    while (recorded() && performance.now() - since < SENT_WITHIN_MS) {
      await new Promise((done) => setTimeout(done, 50));
    }
  };

  // Of report/tables.js, which stands before this in the page.
  const tidy = () => { name(); remember(); offerTables(".report table, table.batch"); };
  let waits = false;
  new MutationObserver(() => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => { waits = false; tidy(); });
  }).observe(document.body, { childList: true, subtree: true, attributeFilter: ["aria-selected", "aria-current"] });
  tidy();
  document.documentElement.dataset.listening = "";
}

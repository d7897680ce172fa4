// The Live tab's microphone. Runs once, when the component is there; `element` and `server` are
// Gradio's. Sound is captured all the time and sent in one piece whenever the answer to the piece
// before has come, so a slow machine gets larger pieces and nothing is dropped.
const GAP_MS = 250; // between an answer and the next piece
const RETRY_MS = 1000;
const TELL_MS = 2500; // without an answer for this long, the page says so
const LOST_MS = 6000; // and after this long, and the length of the sound sent, it is sent again
const CAPTURE = `registerProcessor("capture", class extends AudioWorkletProcessor {
  process(inputs) { if (inputs[0][0]) this.port.postMessage(inputs[0][0].slice()); return true; }
});`;

const at = (name) => element.querySelector(`[data-live="${name}"]`);
let capture = null; // {context, stream, blocks, rate, token, last}

const say = (text, kind) => {
  const line = document.createElement("p");
  line.className = `status ${kind || ""}`;
  line.setAttribute("role", kind === "error" ? "alert" : "status");
  line.textContent = text;
  at("status").replaceChildren(line);
  drawn.status = null;
};
const drawn = {}; // what stands there already is not drawn again: screen readers would repeat it
const set = (name, html) => {
  if (drawn[name] === html) return;
  drawn[name] = html;
  at(name).innerHTML = html;
};
const buttons = (recording) => {
  at("record").disabled = recording;
  at("stop").disabled = !recording;
};

const ears = async () => {
  const wanted = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
  let context, source;
  try { // the browser's own resampler sends a third of the bytes, where it has one
    context = new AudioContext({ sampleRate: 16000 });
    source = context.createMediaStreamSource(stream);
  } catch (error) {
    context = new AudioContext();
    source = context.createMediaStreamSource(stream);
  }
  const code = URL.createObjectURL(new Blob([CAPTURE], { type: "text/javascript" }));
  await context.audioWorklet.addModule(code);
  URL.revokeObjectURL(code);
  const node = new AudioWorkletNode(context, "capture");
  const heard = { context, stream, blocks: [], rate: context.sampleRate, token: null, last: false };
  node.port.onmessage = (message) => {
    heard.blocks.push(message.data);
    let loudest = 0;
    for (const value of message.data) loudest = Math.max(loudest, Math.abs(value));
    at("level").value = Math.max(loudest, at("level").value * 0.9);
  };
  source.connect(node);
  await context.resume();
  return heard;
};

const encoded = (blocks) => { // float32 blocks -> base64 of int16, little-endian
  const count = blocks.reduce((sum, block) => sum + block.length, 0);
  const bytes = new DataView(new ArrayBuffer(2 * count));
  let place = 0;
  for (const block of blocks) for (const value of block) {
    bytes.setInt16(2 * place++, Math.max(-32768, Math.min(32767, Math.round(32767 * value))), true);
  }
  let text = "";
  const raw = new Uint8Array(bytes.buffer);
  for (let i = 0; i < raw.length; i += 8192) text += String.fromCharCode(...raw.subarray(i, i + 8192));
  return btoa(text);
};

const wait = (ms) => new Promise((done) => setTimeout(done, ms));
// Undefined where no answer came: Gradio's call does not fail where the network does, and waits
// without an end for an app that hangs.
const spoken = (piece, patience) => Promise.race([
  server.speak(piece).catch(() => undefined),
  wait(patience),
]);
const run = async (mine) => {
  let kept = [];
  let place = 0; // of the first kept sample: the app knows by it what it has already
  let answered = Date.now();
  const watch = setInterval(() => {
    if (Date.now() - answered > TELL_MS) {
      say(`No answer for ${Math.round((Date.now() - answered) / 1000)} s; what you say is kept here and sent then.`);
    }
  }, 1000);
  try {
    while (capture === mine) {
      const last = mine.last;
      kept = kept.concat(mine.blocks.splice(0));
      const count = kept.reduce((sum, block) => sum + block.length, 0);
      const piece = { token: mine.token, rate: mine.rate, sound: encoded(kept), place, last };
      const answer = await spoken(piece, LOST_MS + 1000 * count / mine.rate);
      if (!answer) {
        await wait(RETRY_MS);
        continue;
      }
      kept = [];
      place += count;
      answered = Date.now();
      if (capture !== mine) return;
      set("status", answer.status);
      set("text", answer.text);
      set("numbers", answer.numbers);
      if (answer.full) close(mine);
      if (answer.over) break;
      await wait(GAP_MS);
    }
  } finally {
    clearInterval(watch);
    close(mine);
    if (capture === mine) { capture = null; buttons(false); at("record").focus(); }
  }
};

const close = (mine) => { // the microphone's light goes out at once
  mine.stream.getTracks().forEach((track) => track.stop());
  if (mine.context.state !== "closed") mine.context.close();
  mine.last = true;
  at("level").value = 0;
};

const refused = (error) => ({
  NotAllowedError: "The browser may not use the microphone; allow it in the address bar, then press Record.",
  NotFoundError: "No microphone was found; connect one, then press Record.",
  NotReadableError: "Another program holds the microphone; close it, then press Record.",
}[error.name] || `The microphone did not start (${error.name}); press Record to try again.`);

element.addEventListener("click", async (event) => {
  const pressed = event.target.closest("button")?.dataset.live;
  if (pressed === "stop" && capture) {
    close(capture);
    at("stop").disabled = true;
  }
  if (pressed !== "record" || capture) return;
  buttons(true);
  if (!navigator.mediaDevices) {
    say("This page may not use a microphone: open it through https, or on this machine.", "error");
    buttons(false);
    return;
  }
  try {
    capture = await ears(); // listens from here on; what is said before the answer is kept
  } catch (error) {
    say(refused(error), "error");
    buttons(false);
    return;
  }
  say("Listening…");
  set("text", at("placeholder").innerHTML);
  at("stop").focus();
  document.querySelector("#live-begin").click(); // Gradio knows the settings; it answers with `begin`
});

window.graniteLive = {
  begin: (token) => {
    if (!capture || capture.token) return;
    if (!token) {
      close(capture);
      capture = null;
      buttons(false);
      return;
    }
    capture.token = token;
    run(capture);
  },
};

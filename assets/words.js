// The words under the transcript follow the player of the recording: the one being heard is lit, a
// press on one plays from there. Runs once; `element` is Gradio's. One word is in the tab order;
// arrow keys, Home and End move among them.
const words = () => [...element.querySelectorAll("button[data-start]")];
const player = () => { // Gradio's wave form keeps its audio element in a shadow root
  for (const part of document.querySelectorAll("#recording *")) {
    const audio = part.shadowRoot?.querySelector("audio");
    if (audio) return audio;
  }
  return [...document.querySelectorAll("#recording audio")].find((audio) => audio.duration) || null;
};

element.addEventListener("click", (event) => {
  const word = event.target.closest("button[data-start], button[data-play]");
  const audio = player();
  if (!word || !audio) return;
  audio.currentTime = Number(word.dataset.start ?? word.dataset.play);
  audio.play().catch(() => {}); // a browser that forbids it still has moved there
  if (word.dataset.start) enter(word, false);
});

const enter = (word, focus) => {
  words().forEach((other) => { other.tabIndex = other === word ? 0 : -1; });
  if (focus) word.focus();
};

element.addEventListener("keydown", (event) => {
  const all = words();
  const here = all.indexOf(event.target);
  const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1 }[event.key];
  if (here < 0 || to === undefined || !all[to]) return;
  event.preventDefault();
  enter(all[to], true);
});

setInterval(() => {
  const all = words();
  if (!all.length || !element.offsetParent) return;
  const audio = player();
  const time = audio ? audio.currentTime : -1;
  const moving = audio && (!audio.paused || time > 0);
  for (const word of all) {
    const heard = Boolean(moving) && time >= Number(word.dataset.start) && time < Number(word.dataset.until);
    if (word.classList.contains("heard") === heard) continue;
    word.classList.toggle("heard", heard);
    if (heard) word.setAttribute("aria-current", "true"); else word.removeAttribute("aria-current");
  }
}, 80);

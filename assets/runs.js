// The list of runs: open, rename and delete go to the server, the filter stays here. Runs once;
// `element` and `trigger` are Gradio's.
let wanted = "";
const filter = () => {
  const box = element.querySelector("input[type=search]");
  if (box && box.value !== wanted && document.activeElement !== box) box.value = wanted;
  for (const row of element.querySelectorAll("tbody tr")) {
    row.hidden = !wanted.toLowerCase().split(/\s+/).every((word) => row.textContent.toLowerCase().includes(word));
  }
};

element.addEventListener("input", (event) => {
  if (event.target.type !== "search") return;
  wanted = event.target.value;
  filter();
});

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-does]");
  if (!button) return;
  const { does, key, title } = button.dataset;
  if (does === "delete" && !confirm(`Delete “${title}”?`)) return;
  const name = does === "edit" ? prompt("Name of this run", title) : "";
  if (name === null) return;
  trigger(does, { key, name });
});

new MutationObserver(filter).observe(element, { childList: true, subtree: true });

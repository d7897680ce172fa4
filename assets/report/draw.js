const figures = JSON.parse(document.getElementById("figures").textContent);
const settings = {displaylogo: false, responsive: true, displayModeBar: false, scrollZoom: false};
const draw = (name) => {
  const figure = figures[name];
  delete figures[name];
  if (figure) Plotly.newPlot(name, figure.data, figure.layout, settings);
};
// What is in sight first; the rest before it is scrolled to, or printed.
const sight = new IntersectionObserver((seen) => {
  for (const one of seen.filter((part) => part.isIntersecting)) {
    sight.unobserve(one.target);
    draw(one.target.id);
  }
}, {rootMargin: "800px"});
Object.keys(figures).forEach((name) => sight.observe(document.getElementById(name)));
addEventListener("beforeprint", () => Object.keys(figures).forEach(draw));
document.getElementById("save").addEventListener("click", (event) => {
  const numbers = document.getElementById("numbers").textContent;
  event.target.href = URL.createObjectURL(new Blob([numbers], {type: "application/json"}));
});
offerTables("main table");

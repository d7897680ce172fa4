const figures = JSON.parse(document.getElementById("figures").textContent);
const settings = {displaylogo: false, responsive: true, displayModeBar: false, scrollZoom: false};
for (const [name, figure] of Object.entries(figures)) {
  Plotly.newPlot(name, figure.data, figure.layout, settings);
}
document.getElementById("save").addEventListener("click", (event) => {
  const numbers = document.getElementById("numbers").textContent;
  event.target.href = URL.createObjectURL(new Blob([numbers], {type: "application/json"}));
});

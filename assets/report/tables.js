// Every table can be copied, for a spreadsheet, and saved as csv: on the app's page and in reports.
const cellsOf = (table) => [...table.rows].map((row) => [...row.cells].map((cell) => cell.innerText.trim()));
const quotedCsv = (text) => /[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
const saveText = (name, text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
const offerTables = (which) => {
  for (const table of document.querySelectorAll(which)) {
    const place = table.closest(".scroll") || table;
    if (place.nextElementSibling?.matches(".table-tools")) continue;
    const tools = document.createElement("p");
    tools.className = "table-tools";
    for (const title of ["Copy", "Save csv"]) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: title, ariaLabel: title + " of this table" });
      tools.append(button);
    }
    place.after(tools);
  }
};
document.addEventListener("click", async (event) => {
  const button = event.target.closest?.(".table-tools button");
  if (!button) return;
  const before = button.closest(".table-tools").previousElementSibling;
  const rows = cellsOf(before.matches("table") ? before : before.querySelector("table"));
  if (button.textContent === "Save csv") {
    saveText("table.csv", rows.map((row) => row.map(quotedCsv).join(",")).join("\n") + "\n");
    return;
  }
  await navigator.clipboard.writeText(rows.map((row) => row.join("\t")).join("\n"));
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});

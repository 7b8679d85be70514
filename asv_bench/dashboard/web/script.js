// Without this the page says the same: it adds a field over each long table that hides the rows without its words.
for (const table of document.querySelectorAll("table[data-filter]")) {
  if (table.tBodies[0].rows.length < 8) continue;
  const field = Object.assign(document.createElement("input"), { className: "filter", type: "search", placeholder: "Filter rows" });
  field.setAttribute("aria-label", "Filter rows");
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of table.tBodies[0].rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  });
  table.parentElement.before(field);
}

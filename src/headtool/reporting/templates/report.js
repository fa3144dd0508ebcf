// Sorting: numbers by value, words by alphabet, empty cells last either way; equal rows keep their order.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const first = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const words = head.classList.contains("text");
      const was = head.getAttribute("aria-sort");
      const down = was ? was === "ascending" : !words && column > 1; // numbers: the largest first
      const keyed = first.map((row) => [row, row.cells[column].textContent]);
      const value = (text) => (words ? text : Number(text));
      keyed.sort(([, a], [, b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        const [x, y] = [value(a), value(b)];
        return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
      });
      body.replaceChildren(...keyed.map(([row]) => row));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}
// A layer typed in: only its heads are shown.
for (const input of document.querySelectorAll("input[data-table]")) {
  const body = document.getElementById(input.dataset.table).tBodies[0];
  input.addEventListener("input", () => {
    for (const row of body.rows) row.hidden = input.value !== "" && row.cells[0].textContent !== input.value;
  });
}

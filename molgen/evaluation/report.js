"use strict";
// The page reads without this script; it adds sorting, filters, copying and the values under the pointer.
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // ---- molecules: sort and filter

  const table = $("table.cards");
  if (table) {
    const body = $("tbody", table);
    const cards = all("tr", body);
    const heads = all("th[data-key]", table);
    const status = $(".status");
    const contains = $("#contains"), leastQed = $("#least-qed"), onlyNovel = $("#only-novel"), ofSet = $("#of-set");
    let sortedBy = "drawing order";

    const say = () => {
      const shown = cards.filter((card) => !card.hidden).length;
      status.textContent = `Showing ${shown} of ${cards.length} molecules, by ${sortedBy}`;
    };

    const filter = () => {
      const text = contains.value.trim(), least = Number(leastQed.value);
      $("output[for=least-qed]").value = least.toFixed(2);
      for (const card of cards) {
        const { smiles, qed, set, novel } = card.dataset;
        card.hidden = !(
          smiles.includes(text) && Number(qed) >= least &&
          (!onlyNovel?.checked || novel !== undefined) && (!ofSet?.value || set === ofSet.value)
        );
      }
      say();
    };

    const sort = (head) => {
      const key = head.dataset.key;
      // the first press puts the best or the most first; SA is best where it is low
      const first = ["order", "sa"].includes(key) ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const way = head.ariaSort === first ? other : first;
      for (const each of heads) each.ariaSort = each === head ? way : "none";
      const sign = way === "ascending" ? 1 : -1;
      const value = (card) => Number(card.dataset[key]);
      cards.sort((a, b) => sign * (value(a) - value(b)) || Number(a.dataset.order) - Number(b.dataset.order));
      body.append(...cards);
      sortedBy = `${key === "order" ? "drawing order" : head.textContent}, ${way}`;
      say();
    };

    for (const control of [contains, leastQed, onlyNovel, ofSet]) control?.addEventListener("input", filter);
    for (const head of heads) $("button", head).addEventListener("click", () => sort(head));
    body.addEventListener("click", async (event) => {
      const button = event.target.closest(".copy");
      if (!button) return;
      const code = $("code", button.parentElement);
      try {
        await navigator.clipboard.writeText(button.closest("tr").dataset.smiles);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    $(".tools").hidden = $("thead", table).hidden = false;
    for (const button of all(".copy", table)) button.hidden = false;
    filter();
  }

  // ---- plots: the values under the pointer, read from the table of values

  for (const plot of all(".plot")) {
    const svg = $("svg", plot), cursor = $(".cursor", plot), readout = $(".readout", plot);
    const names = all("thead th", plot).slice(1).map((th) => th.textContent);
    const rows = all("tbody tr", plot).map((tr) => [...tr.cells].map((cell) => cell.textContent));
    const left = Number(svg.dataset.left), width = Number(svg.dataset.right) - left, binned = "binned" in svg.dataset;
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const share = ((event.clientX - box.left) / box.width * svg.viewBox.baseVal.width - left) / width;
      const last = rows.length - 1;
      const index = Math.max(0, Math.min(last, binned ? Math.floor(share * rows.length) : Math.round(share * last)));
      const size = binned ? width / rows.length : 1.5;
      const start = binned ? index * size : (index / Math.max(last, 1)) * width - size / 2;
      cursor.setAttribute("x", left + start);
      cursor.setAttribute("width", size);
      const [place, ...values] = rows[index];
      readout.textContent = `${place}: ${names.map((name, i) => `${name} ${values[i]}`).join(", ")}`;
    });
    svg.addEventListener("pointerleave", () => {
      cursor.setAttribute("width", 0);
      readout.textContent = "";
    });
  }
})();

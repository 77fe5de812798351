"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

  for (const form of all("form.filter")) {
    const rows = all("tbody tr", document.getElementById(form.dataset.table));
    const words = rows.map((row) => row.textContent.toLowerCase());
    const [search, kind, count] = ["input", "select", "output"].map((tag) => form.querySelector(tag));
    const apply = () => {
      const wanted = search.value.trim().toLowerCase();
      let shown = 0;
      rows.forEach((row, index) => {
        row.hidden = !(words[index].includes(wanted) && (!kind.value || row.dataset.kind === kind.value));
        shown += row.hidden ? 0 : 1;
      });
      count.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
    };
    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }

  const copy = async (code) => {
    code.dataset.short ??= code.textContent;
    const open = code.toggleAttribute("data-open");
    code.textContent = open ? code.title : code.dataset.short;
    if (open && navigator.clipboard) {
      try {
        await navigator.clipboard.writeText(code.title);
        code.dataset.copied = "copied";
        setTimeout(() => delete code.dataset.copied, 1500);
      } catch {
        getSelection().selectAllChildren(code);
      }
    }
  };
  for (const code of all("code.digest")) {
    code.tabIndex = 0;
    code.setAttribute("role", "button");
    code.setAttribute("aria-label", `Digest ${code.textContent}, show all and copy`);
    code.addEventListener("click", () => copy(code));
    code.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        copy(code);
      }
    });
  }

  addEventListener("beforeprint", () => all("details").forEach((item) => { item.open = true; }));
})();

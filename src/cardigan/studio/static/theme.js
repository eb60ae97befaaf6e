// Before the first paint, so that a chosen theme never flashes. Not a module: modules run after parsing.
try {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch { /* storage may be refused; the system's theme is used then */ }

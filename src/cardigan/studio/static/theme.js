// Sets the saved theme before the first paint, to avoid a flash. Not a module: modules run after parsing.
try {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch { /* storage is blocked: the system's theme is used */ }

// Sets the saved theme before the first paint, to avoid a flash.
try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* storage may be refused; the system's theme is used then */ }

// Theme: light or dark, before anything is drawn. The system's choice, until the button makes another. No module: those wait.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem("noema.theme");
  } catch {
    // storage is forbidden: the system's choice it is
  }
  if (chosen) root.dataset.theme = chosen;
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => button.setAttribute("aria-pressed", isDark());
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      show();
      try {
        localStorage.setItem("noema.theme", root.dataset.theme);
      } catch {
        // holds until the page is left
      }
    });
    dark.addEventListener("change", show);
    show();
  });
})();

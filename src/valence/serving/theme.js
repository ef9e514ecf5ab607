// Light or dark: as the system has it until the button is pressed; then the choice is stored.

const NAME = "valence-theme";
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");

function draw() {
  root.dataset.theme = localStorage.getItem(NAME) || (dark.matches ? "dark" : "light");
}

dark.addEventListener("change", draw);
document.getElementById("theme").addEventListener("click", () => {
  localStorage.setItem(NAME, root.dataset.theme === "dark" ? "light" : "dark");
  draw();
});
draw();

// Before anything is drawn: light or dark, if somebody has picked one; else as the system has it.
const theme = localStorage.getItem("theme");
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;

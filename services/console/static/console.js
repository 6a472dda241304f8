// The dialog that confirms: opens with what htmx put into it, closes with Escape or a button. And: is the stream alive?
(() => {
  const dialog = document.getElementById("ask");
  const body = document.getElementById("ask-body");
  const lost = document.getElementById("lost");

  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target !== body) return;
    if (!dialog.open) dialog.showModal();
    const empty = [...body.querySelectorAll("input")].find((field) => !field.value);
    (empty || body.querySelector("button") || body).focus();
  });
  document.addEventListener("click", (event) => {
    if (dialog.open && (event.target.closest("[data-close]") || event.target === dialog)) dialog.close();
  });
  document.body.addEventListener("htmx:sseOpen", () => { if (lost) lost.hidden = true; });
  document.body.addEventListener("htmx:sseError", () => { if (lost) lost.hidden = false; });
  // Open details stay open when their panel is drawn again.
  document.body.addEventListener("htmx:sseBeforeMessage", (event) => {
    event.target.dataset.open = [...event.target.querySelectorAll("details")].map((one) => (one.open ? "1" : "0")).join("");
  });
  document.body.addEventListener("htmx:sseMessage", (event) => {
    const open = event.target.dataset ? event.target.dataset.open || "" : "";
    event.target.querySelectorAll("details").forEach((one, i) => { one.open = open[i] === "1"; });
  });
})();

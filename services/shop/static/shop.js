// The drawer: opens with what htmx put into it, closes with Escape or its button, gives focus back.
(() => {
  const drawer = document.getElementById("drawer");
  const body = document.getElementById("drawer-body");
  const narrow = window.matchMedia("(max-width: 900px)");
  let opener = null;

  const close = () => {
    if (!drawer.open) return;
    drawer.close();
    document.body.classList.remove("with-drawer");
    if (opener && opener.isConnected) opener.focus();
    opener = null;
  };
  const open = () => {
    if (!drawer.open) {
      opener = document.activeElement;
      if (narrow.matches) drawer.showModal();
      else drawer.show();
      document.body.classList.add("with-drawer");
    }
    drawer.scrollTop = 0;
    body.focus({ preventScroll: true });
  };

  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target === body) open();
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]") || event.target === drawer) close();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  drawer.addEventListener("close", () => document.body.classList.remove("with-drawer"));
})();

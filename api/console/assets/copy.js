// A button beside each key and snippet that copies it; without scripts, or where the browser forbids it, there is none.
for (const button of navigator.clipboard ? document.querySelectorAll("[data-copy]") : []) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = button.closest(".snippet, .key").querySelector("code").textContent;
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  });
}

// The proof of work that a form asks for when much is going on: a number whose SHA-256, with the challenge before it,
// begins with so many zero bits. In batches, so that the page stays alive.
const fields = document.querySelectorAll("[data-challenge]");
const status = document.querySelector("[data-proof-status]");
const buttons = [...fields].flatMap((field) => [...field.form.querySelectorAll("button")]);

function zeros(hash) {
  const bytes = new Uint8Array(hash);
  const full = bytes.findIndex((byte) => byte !== 0);
  return full < 0 ? 256 : full * 8 + Math.clz32(bytes[full]) - 24;
}

async function solve(challenge, bits) {
  const encoder = new TextEncoder();
  for (let start = 0; ; start += 512) {
    const tries = Array.from({ length: 512 }, (_, i) => `${challenge}:${start + i}`);
    const hashes = await Promise.all(tries.map((text) => crypto.subtle.digest("SHA-256", encoder.encode(text))));
    const found = hashes.findIndex((hash) => zeros(hash) >= bits);
    if (found >= 0) return tries[found];
  }
}

if (crypto.subtle) {
  for (const button of buttons) button.disabled = true;
  const { challenge, bits } = fields[0].dataset;
  const proof = await solve(challenge, Number(bits));
  for (const field of fields) field.value = proof;
  for (const button of buttons) button.disabled = false;
  status.textContent = status.dataset.done;
} else {
  status.textContent = "It needs https. Open this page by its https address, or wait an hour.";
}

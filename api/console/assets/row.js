/** A row of recommendations: asks, drops stale answers, moves cards to their new places. */

import { recommend } from "./client.js";
import { card, el, message, skeletons } from "./cards.js";

const COUNT = 12;
const RETRY_MS = 3000;
const RETRIES = 20;
const still = window.matchMedia("(prefers-reduced-motion: reduce)");

export class Row {
  /**
   * @param {HTMLElement} root where the row lives @param {(answer: object) => void} [onAnswer]
   * @param {{waits?: boolean}} [options] waits: a fallback means that the product is still being encoded. A row that
   *   does not wait is an extra: its section goes away when it cannot be had
   */
  constructor(root, onAnswer, { waits = true } = {}) {
    this.list = el("ul", { class: "strip" });
    this.note = el("div", { class: "row-note" });
    root.append(this.note, this.list);
    this.onAnswer = onAnswer;
    this.waits = waits;
    this.section = root.closest("section");
    this.body = null;
  }

  /** Ask for `body`; an answer that is overtaken by a later ask is never shown. */
  async ask(body, { quiet = false, tries = 0 } = {}) {
    this.stop();
    this.body = body;
    const asked = new AbortController();
    this.asked = asked;
    if (!quiet) {
      this.note.replaceChildren();
      this.list.replaceChildren(...skeletons(6));
    }
    this.list.setAttribute("aria-busy", "true");
    try {
      const answer = await recommend({ count: COUNT, explain: true, ...body }, asked.signal);
      if (this.asked !== asked) return;
      this.show(answer, tries);
    } catch (error) {
      if (error.name === "AbortError" || this.asked !== asked) return;
      this.list.replaceChildren();
      this.section.hidden = !this.waits;
      this.note.replaceChildren(message(error.message, error.detail ?? "Try again.", { label: "Try again", run: () => this.ask(body) }));
    } finally {
      if (this.asked === asked) this.list.removeAttribute("aria-busy");
    }
  }

  /** Say why there is nothing to ask for. */
  explain(title, detail) {
    this.stop();
    this.list.replaceChildren();
    this.note.replaceChildren(message(title, detail));
  }

  /** Forget what is under way. */
  stop() {
    this.asked?.abort();
    clearTimeout(this.timer);
    this.asked = null;
  }

  show(answer, tries) {
    this.section.hidden = false;
    const waiting = this.waits && answer.fallback_used;
    this.list.classList.toggle("is-fallback", waiting);
    if (answer.items.length === 0) {
      this.list.replaceChildren();
      this.note.replaceChildren(message("Nothing to compare it with yet", "Add more products to the shop, and they appear here."));
    } else {
      this.note.replaceChildren(...(waiting ? [this.waiting(tries)] : []));
      this.move(answer.items.map((item) => card(item, { score: true, answer: answer.recommendation_id })));
    }
    if (waiting && tries < RETRIES) {
      this.timer = setTimeout(() => this.ask(this.body, { quiet: true, tries: tries + 1 }), RETRY_MS);
    }
    this.onAnswer?.(answer);
  }

  waiting(tries) {
    const text = tries < RETRIES
      ? "Still encoding this product. These are the newest products instead; the list changes by itself as soon as it can."
      : "This product is still not encoded. Check that a worker runs (“kindred doctor” says), then load the page again.";
    return el("p", { class: "encoding" }, el("span", { class: tries < RETRIES ? "spinner" : "", "aria-hidden": "true" }), text);
  }

  /** Put new cards in place; those that were there before glide from their old position. */
  move(cards) {
    const focused = this.list.contains(document.activeElement) ? document.activeElement.closest("li")?.dataset.id : null;
    const before = new Map();
    for (const old of this.list.children) if (old.dataset.id) before.set(old.dataset.id, old.getBoundingClientRect());
    const scroll = this.list.scrollLeft;
    this.list.replaceChildren(...cards);
    this.list.scrollLeft = before.size ? scroll : 0;
    if (focused) this.list.querySelector(`[data-id="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
    if (still.matches) return;
    for (const entry of cards) {
      const from = before.get(entry.dataset.id);
      const to = entry.getBoundingClientRect();
      if (from) {
        if (from.left !== to.left || from.top !== to.top) {
          entry.animate([{ transform: `translate(${from.left - to.left}px, ${from.top - to.top}px)` }, { transform: "none" }], { duration: 280, easing: "cubic-bezier(.2,.8,.2,1)" });
        }
      } else if (before.size) {
        entry.animate([{ opacity: 0, transform: "scale(.94)" }, { opacity: 1, transform: "none" }], { duration: 220, easing: "ease-out" });
      }
    }
  }
}

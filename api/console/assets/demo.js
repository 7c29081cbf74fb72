/** The storefront: a list of products, and one product with what is like it. The address says which. */

import { FIELDS, recommend, search } from "./client.js";
import { card, el, languageName, message, picture, priceNodes, skeletons } from "./cards.js";
import { Row } from "./row.js";
import { choose, shopper, shoppers, tellView } from "./shopper.js";

const PAGE = 48;
const SEARCH_COUNT = 48;
const DIAL_DELAY_MS = 90;
const TYPING_DELAY_MS = 220;

const $ = (id) => document.getElementById(id);
const products = new Map();
const languages = new Map();
const paths = new Map();
const shop = { key: null, cursor: null, asked: null, scroll: 0, loading: false };

const say = (text) => { $("status").textContent = text; };

/** The address's fragment as {item, q, lang, cat, sub}. */
const route = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

function go(changes, { replace = false } = {}) {
  const next = { ...route(), ...changes };
  const params = new URLSearchParams(Object.entries(next).filter(([, value]) => value));
  const address = `#${params}`;
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  render();
}

function remember(items) {
  for (const item of items) {
    if (item.fields && !products.has(item.id)) {
      products.set(item.id, item.fields);
      if (item.fields.language) languages.set(item.fields.language, (languages.get(item.fields.language) ?? 0) + 1);
      for (const path of item.fields.categories ?? []) paths.set(path, (paths.get(path) ?? 0) + 1);
    }
  }
}

// --- the list ---------------------------------------------------------------------------------

const steps = (path) => path.split(" > ");

function filterOf({ lang, cat, sub }) {
  const parts = [];
  if (lang) parts.push({ eq: ["language", lang] });
  if (cat) {
    const chosen = [...paths.keys()].filter((path) => steps(path)[0] === cat && (!sub || steps(path).at(-1) === sub));
    parts.push({ in: ["categories", chosen.length ? chosen : [cat]] });
  }
  return parts.length ? { and: parts } : undefined;
}

function chip(label, pressed, run, lang) {
  const button = el("button", { type: "button", class: "chip", "aria-pressed": String(pressed), lang }, label);
  button.addEventListener("click", run);
  return button;
}

function replaceChips(box, chips) {
  // The pressed chip keeps the focus although its node is new.
  const focused = box.contains(document.activeElement) ? document.activeElement.textContent : null;
  box.replaceChildren(...chips);
  if (focused) chips.find((node) => node.textContent === focused)?.focus();
}

function renderChips({ lang = "", cat = "", sub = "" }) {
  const tongues = [...languages.keys()].sort((a, b) => languageName(a).localeCompare(languageName(b)));
  $("languages").hidden = tongues.length < 2;
  replaceChips($("languages"), [
    chip("All languages", !lang, () => go({ lang: "" })),
    ...tongues.map((code) => chip(languageName(code), lang === code, () => go({ lang: lang === code ? "" : code }), code)),
  ]);
  const tops = [...new Set([...paths.keys()].map((path) => steps(path)[0]))].sort();
  $("categories").hidden = tops.length < 1;
  replaceChips($("categories"), [
    chip("Everything", !cat, () => go({ cat: "", sub: "" })),
    ...tops.map((top) => chip(top, cat === top, () => go({ cat: cat === top ? "" : top, sub: "" }))),
  ]);
  const leaves = [...new Set([...paths.keys()].filter((path) => steps(path)[0] === cat && steps(path).length > 1).map((path) => steps(path).at(-1)))].sort();
  $("subcategories").hidden = leaves.length < 2;
  replaceChips($("subcategories"), leaves.map((leaf) => chip(leaf, sub === leaf, () => go({ sub: sub === leaf ? "" : leaf }))));
}

async function loadList(where) {
  shop.asked?.abort();
  const asked = (shop.asked = new AbortController());
  shop.cursor = null;
  shop.loading = true;
  $("notice").replaceChildren();
  $("more").hidden = true;
  $("took").textContent = "";
  $("headline").textContent = where.q ? `Results for “${where.q}”` : "New in the shop";
  $("grid").replaceChildren(...skeletons(12));
  $("grid").setAttribute("aria-busy", "true");
  try {
    const filter = filterOf(where);
    const answer = where.q
      ? await search({ query: where.q, count: SEARCH_COUNT, filter, explain: true }, asked.signal)
      : await recommend({ strategy: "new", count: PAGE, filter }, asked.signal);
    if (shop.asked !== asked) return;
    remember(answer.items);
    renderChips(where);
    $("grid").replaceChildren(...answer.items.map((item) => card(item, { score: Boolean(where.q) })));
    $("took").textContent = `${answer.items.length}${answer.cursor ? "+" : ""} products, answered in ${answer.took_ms.toFixed(1)} ms`;
    say(answer.items.length ? `${answer.items.length} products` : "Nothing found");
    if (answer.items.length === 0) showEmpty(where);
    else if (where.q && answer.fallback_used) {
      $("notice").replaceChildren(el("p", { class: "encoding" }, "Found by words only: the encode worker is away. “kindred doctor” says how to bring it back."));
    }
    shop.cursor = where.q ? null : answer.cursor ?? null;
    $("more").hidden = !shop.cursor;
  } catch (error) {
    if (error.name === "AbortError" || shop.asked !== asked) return;
    shop.key = null;
    $("grid").replaceChildren();
    $("notice").replaceChildren(message(error.message, error.detail ?? "Try again.", { label: "Try again", run: () => render() }));
    say(error.message);
  } finally {
    if (shop.asked === asked) {
      shop.loading = false;
      $("grid").removeAttribute("aria-busy");
    }
  }
}

function showEmpty(where) {
  if (where.q) {
    $("notice").replaceChildren(message(`Nothing found for “${where.q}”`,
      where.lang || where.cat ? "Try it without the filters, or with fewer words." : "Try fewer or other words; any of the shop's languages will do.",
      { label: where.lang || where.cat ? "Search everything" : "Show all products", run: () => go(where.lang || where.cat ? { lang: "", cat: "", sub: "" } : { q: "" }) }));
  } else if (where.lang || where.cat) {
    $("notice").replaceChildren(message("No product matches these filters", "Take one of them away.", { label: "Show all products", run: () => go({ lang: "", cat: "", sub: "" }) }));
  } else {
    $("notice").replaceChildren(message("The shop is empty", "Run “kindred demo” to fill it, then load this page again.", { label: "Look again", run: () => location.reload() }));
  }
}

async function loadMore() {
  if (!shop.cursor || shop.loading) return;
  const asked = shop.asked;
  shop.loading = true;
  $("more").textContent = "Loading …";
  try {
    const where = route();
    const answer = await recommend({ strategy: "new", count: PAGE, filter: filterOf(where), cursor: shop.cursor }, asked.signal);
    if (shop.asked !== asked) return;
    remember(answer.items);
    renderChips(where);
    $("grid").append(...answer.items.map((item) => card(item)));
    shop.cursor = answer.items.length ? answer.cursor ?? null : null;
    $("took").textContent = `${$("grid").children.length}${shop.cursor ? "+" : ""} products`;
    $("notice").replaceChildren();
  } catch (error) {
    if (error.name === "AbortError" || shop.asked !== asked) return;
    // The button stays: pressing it asks for the same page again.
    $("notice").replaceChildren(message(error.message, error.detail ?? "Press the button to try again."));
  } finally {
    if (shop.asked === asked) {
      shop.loading = false;
      $("more").textContent = "Show more products";
      $("more").hidden = !shop.cursor;
    }
  }
}

// --- the shopper's own rows -------------------------------------------------------------------

const personal = {
  forYou: new Row($("row-for-you"), (answer) => {
    remember(answer.items);
    const met = new Set(answer.items.map((item) => item.explain?.because?.item_id).filter(Boolean));
    const titles = [...met].map((id) => products.get(id)?.title).filter(Boolean).slice(0, 2);
    $("for-you-why").textContent = titles.length ? `Among others because of “${titles.join("” and “")}”.`
      : met.size ? "From what was looked at and bought before."
      : "Look at a few products, and this row follows.";
  }, { waits: false }),
  trending: new Row($("row-trending"), undefined, { waits: false }),
  recent: new Row($("row-recent"), (answer) => { remember(answer.items); $("recent").hidden = answer.items.length === 0; }, { waits: false }),
};

/** Ask for the rows anew: quietly after a click, so that one sees what moved. */
function loadPersonal({ quiet = false } = {}) {
  const visitor_id = shopper().visitor_id;
  personal.forYou.ask({ strategy: "for_you", visitor_id }, { quiet });
  personal.trending.ask({ strategy: "trending", fallback: "popular" }, { quiet: true });
  personal.recent.ask({ strategy: "recently_viewed", visitor_id, fallback: "none" }, { quiet: true });
}

function renderShopper() {
  $("shopper").replaceChildren(...shoppers.map((one) => el("option", { value: one.visitor_id, selected: one === shopper() }, one.name)));
}

// --- one product ------------------------------------------------------------------------------

const rows = {
  similar: new Row($("row-similar"), (answer) => {
    $("dial-value").textContent = `${dialText()} · ${answer.took_ms.toFixed(1)} ms`;
  }),
  looks: new Row($("row-looks")),
  text: new Row($("row-text")),
  together: new Row($("row-together"), (answer) => { $("together").hidden = answer.items.length === 0; }, { waits: false }),
};
let shown = null;
let arrived = null;
let told = Promise.resolve();
let dialTimer = 0;

const photoShare = () => Number($("dial").value) / 100;
const dialText = () => `${100 - $("dial").value} % text, ${$("dial").value} % photo`;

function similarBody(id) {
  return { strategy: "similar", item_ids: [id], weights: { text: Number((1 - photoShare()).toFixed(2)), image: photoShare() } };
}

function askSimilar(id, quiet) {
  const body = similarBody(id);
  $("dial").setAttribute("aria-valuetext", dialText());
  $("dial-value").textContent = dialText();
  const whole = { ...body, count: 12, fields: FIELDS, explain: true };
  $("request").textContent = `POST ${location.origin}/v1/recommend\nAuthorization: Bearer …\n\n${JSON.stringify(whole, null, 2)}`;
  rows.similar.ask(body, { quiet });
}

function turnDial(value) {
  $("dial").value = value;
  clearTimeout(dialTimer);
  askSimilar(shown, true);
}

const AVAILABILITY = { in_stock: "In stock", out_of_stock: "Out of stock", preorder: "Preorder", backorder: "Backorder" };

function showPhoto(source, fields) {
  const image = picture(source, fields.title ?? "");
  image.removeAttribute("loading");
  $("stage").replaceChildren(image);
}

function fillDetail(id, fields) {
  document.title = fields.title ?? id;
  $("detail-brand").textContent = fields.brand ?? "";
  $("detail-title").textContent = fields.title ?? id;
  $("detail-title").lang = $("detail-about").lang = fields.language ?? "";
  $("detail-price").replaceChildren(...priceNodes(fields));
  $("detail-availability").textContent = AVAILABILITY[fields.availability] ?? "";
  $("detail-availability").dataset.value = fields.availability ?? "";
  $("detail-about").textContent = fields.description ?? "";
  const facts = [
    ["Category", (fields.categories ?? []).map((path) => path.replaceAll(" > ", " › ")).join(", ")],
    ["Seller", fields.seller_id],
    ["Language", fields.language && languageName(fields.language)],
    ...Object.entries(fields.attributes ?? {}).slice(0, 6).map(([name, value]) => [name.charAt(0).toUpperCase() + name.slice(1), Array.isArray(value) ? value.join(", ") : String(value)]),
    ["Id", id],
  ];
  $("detail-facts").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  const images = fields.images ?? [];
  showPhoto(images[0], fields);
  $("thumbs").replaceChildren(...(images.length < 2 ? [] : images.map((source, index) => {
    const thumb = el("button", { type: "button", class: "thumb", "aria-pressed": String(index === 0), "aria-label": `Photo ${index + 1} of ${images.length}` }, picture(source));
    thumb.addEventListener("click", () => {
      for (const other of $("thumbs").children) other.setAttribute("aria-pressed", String(other === thumb));
      showPhoto(source, fields);
    });
    return thumb;
  })));
}

async function openItem(id) {
  if (shown === id) return;
  shown = id;
  for (const row of Object.values(rows)) row.stop();
  let fields = products.get(id);
  if (!fields) {
    fillDetail(id, { title: "Loading …" });
    try {
      const answer = await recommend({ strategy: "new", count: 1, filter: { eq: ["id", id] }, include: ["out_of_stock"], fallback: "none" });
      if (shown !== id) return;
      remember(answer.items);
      fields = products.get(id);
    } catch (error) {
      if (shown !== id) return;
      return showMissing(error.message, error.detail ?? "Try again.");
    }
  }
  if (!fields) return showMissing("This product is not in the shop", "It may have been removed. Go back and choose another.");
  fillDetail(id, fields);
  for (const section of document.querySelectorAll(".row-section, .request")) section.hidden = false;
  told = tellView(id, arrived);
  arrived = null;
  askSimilar(id, false);
  rows.together.ask({ strategy: "bought_together", item_ids: [id], fallback: "none" });
  if (fields.images?.length) rows.looks.ask({ strategy: "visually_similar", item_ids: [id] });
  else rows.looks.explain("This product has no photo", "Upload one with PUT /v1/items/{id}/images/0, and its look-alikes appear here.");
  rows.text.ask({ strategy: "similar", item_ids: [id], weights: { text: 1, image: 0 } });
}

function showMissing(title, detail) {
  fillDetail(shown, { title, description: detail });
  $("detail-facts").replaceChildren();
  for (const section of document.querySelectorAll(".row-section, .request")) section.hidden = true;
  shown = null;
}

// --- the address decides ----------------------------------------------------------------------

const homeTitle = document.title;
// The list comes back where it was left, which the browser cannot know while the list is hidden.
history.scrollRestoration = "manual";

function render() {
  const where = route();
  const open = Boolean(where.item);
  const wasOpen = !$("detail").hidden;
  if (open && !wasOpen) shop.scroll = window.scrollY;
  $("shop").hidden = open;
  $("detail").hidden = !open;
  if (open) {
    openItem(where.item);
    window.scrollTo({ top: 0 });
    $("detail-title").focus({ preventScroll: true });
    return;
  }
  const left = shown;
  for (const row of Object.values(rows)) row.stop();
  shown = null;
  document.title = homeTitle;
  if (document.activeElement !== $("query")) $("query").value = where.q ?? "";
  const home = !where.q && !where.lang && !where.cat;
  $("personal").hidden = !home;
  // After what was just told, so that the rows know of it.
  if (home) told.then(() => loadPersonal({ quiet: wasOpen }));
  const key = JSON.stringify([where.q ?? "", where.lang ?? "", where.cat ?? "", where.sub ?? ""]);
  renderChips(where);
  if (key !== shop.key) {
    shop.key = key;
    loadList(where);
  } else if (wasOpen) {
    window.scrollTo({ top: shop.scroll });
    if (left) $("grid").querySelector(`[data-id="${CSS.escape(left)}"] a`)?.focus({ preventScroll: true });
  }
}

let typing = 0;
const submit = (replace) => {
  clearTimeout(typing);
  const q = $("query").value.trim();
  if (q !== (route().q ?? "") || route().item) go({ q, item: "" }, { replace });
};
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  submit(false);
});
$("query").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => submit(Boolean(route().q) && !route().item), TYPING_DELAY_MS);
});
$("dial").addEventListener("input", () => {
  clearTimeout(dialTimer);
  $("dial").setAttribute("aria-valuetext", dialText());
  $("dial-value").textContent = dialText();
  dialTimer = setTimeout(() => shown && askSimilar(shown, true), DIAL_DELAY_MS);
});
$("dial-text").addEventListener("click", () => turnDial(0));
$("dial-photo").addEventListener("click", () => turnDial(100));
$("back").addEventListener("click", (event) => {
  event.preventDefault();
  go({ item: "" });
});
$("more").addEventListener("click", loadMore);
new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) loadMore();
}, { rootMargin: "600px" }).observe($("more"));
// A link of a card changes the fragment to the item alone; the list's own state is kept behind it.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.card");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  const { answer, rank } = link.closest("li").dataset;
  arrived = answer ? { recommendation_id: answer, position: Number(rank) } : null;
  go({ item: decodeURIComponent(link.getAttribute("href").slice("#item=".length)) });
});
$("shopper").addEventListener("change", () => {
  choose($("shopper").value);
  if (route().item) go({ item: "" });
  else loadPersonal();
});
renderShopper();
window.addEventListener("popstate", render);
window.addEventListener("hashchange", render);
render();

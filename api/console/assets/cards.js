/** Products as cards, and everything a card may say. */

/** Make an element: el("p", {class: "x"}, "text", child). */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** The name of a language as its speakers write it. */
export function languageName(code) {
  try {
    const own = new Intl.DisplayNames([code], { type: "language" }).of(code);
    return own.charAt(0).toLocaleUpperCase(code) + own.slice(1);
  } catch {
    return code;
  }
}

/** A price in minor units as people read it; empty where there is none. */
export function money(minor, currency) {
  if (minor == null) return "";
  try {
    const format = new Intl.NumberFormat(undefined, { style: "currency", currency: currency || "EUR" });
    return format.format(minor / 10 ** format.resolvedOptions().maximumFractionDigits);
  } catch {
    return `${minor / 100} ${currency}`;
  }
}

/** Price, and the price before where the product is on sale. */
export function priceNodes(fields) {
  const sale = fields.sale_price != null && fields.sale_price < fields.price;
  if (!sale) return [money(fields.price, fields.currency)];
  return [
    el("strong", { class: "sale" }, money(fields.sale_price, fields.currency)),
    " ",
    el("s", {}, el("span", { class: "visually-hidden" }, "before: "), money(fields.price, fields.currency)),
  ];
}

/** A photo that turns into a quiet placeholder when it cannot be loaded. */
export function picture(source, alt = "") {
  if (!source) return el("span", { class: "no-photo" }, "No photo");
  const image = el("img", { src: source, alt, loading: "lazy", decoding: "async", width: 384, height: 384 });
  image.addEventListener("error", () => image.replaceWith(el("span", { class: "no-photo" }, "Photo unavailable")), { once: true });
  return image;
}

const percent = (value) => `${Math.round(Math.max(0, Math.min(1, value)) * 100)}%`;

function part(name, kind, value, similarity) {
  const meter = el("span", { class: `meter meter-${kind}` });
  meter.style.setProperty("--part", percent(value));
  const cosine = similarity == null ? null : el("span", { class: "cosine" }, ` · cosine ${similarity.toFixed(2)}`);
  return el("span", { class: "why-line" }, el("span", {}, `${name} ${value.toFixed(2)}`, cosine), meter);
}

/** What the score is made of: shown on hover and focus, read aloud with the card. */
function why(explain) {
  const lines = [];
  if (explain.text != null) lines.push(part("Text", "text", explain.text, explain.text_similarity));
  if (explain.image != null) lines.push(part("Photo", "photo", explain.image, explain.image_similarity));
  if (explain.behaviour != null) lines.push(part("Shoppers", "shoppers", explain.behaviour));
  if (explain.popularity != null) lines.push(part("Popular", "popular", explain.popularity));
  if (explain.words != null) lines.push(part("Words", "text", explain.words));
  if (explain.vectors != null) lines.push(part("Meaning", "photo", explain.vectors));
  return lines.length ? el("span", { class: "why" }, ...lines) : null;
}

function scoreBar(score, explain) {
  const bar = el("span", { class: "bar", "aria-hidden": "true" });
  const shares = {
    text: explain?.text ?? explain?.words ?? 0,
    photo: explain?.image ?? explain?.vectors ?? 0,
    shoppers: explain?.behaviour ?? 0,
    popular: explain?.popularity ?? 0,
  };
  const sum = Object.values(shares).reduce((total, value) => total + Math.max(0, value), 0);
  let end = 0;
  const stops = Object.entries(shares).map(([kind, value]) => {
    const start = end;
    end += sum > 0 ? Math.max(0, value) / sum : kind === "popular" ? 1 : 0;
    return `var(--${kind}-part) ${percent(start)} ${percent(end)}`;
  });
  bar.style.setProperty("--score", percent(score));
  bar.style.setProperty("--parts", `linear-gradient(90deg, ${stops.join(", ")})`);
  return bar;
}

/** One product as a list item with a link; `score` shows how it was chosen, `answer` the recommendation it is of. */
export function card(item, { score = false, answer } = {}) {
  const fields = item.fields ?? {};
  const link = el("a", { class: "card", href: `#item=${encodeURIComponent(item.id)}` });
  const photo = el("span", { class: "card-photo" }, picture(fields.images?.[0]));
  if (fields.sale_price != null && fields.sale_price < fields.price) {
    photo.append(el("span", { class: "badge" }, `−${Math.round((1 - fields.sale_price / fields.price) * 100)} %`));
  }
  if (score && item.explain) photo.append(why(item.explain) ?? "");
  link.append(
    photo,
    el("span", { class: "card-meta" },
      el("span", { class: "maker" }, fields.brand ?? ""),
      fields.language ? el("span", { class: "tongue", title: languageName(fields.language) }, fields.language) : null),
    el("span", { class: "card-title", lang: fields.language ?? false }, fields.title ?? item.id),
    el("span", { class: "price" }, ...priceNodes(fields)),
  );
  if (score && !item.fallback) {
    link.append(el("span", { class: "score" },
      scoreBar(item.score, item.explain),
      el("span", {}, el("span", { class: "visually-hidden" }, "score "), item.score.toFixed(2))));
  }
  const entry = el("li", {}, link);
  entry.dataset.id = item.id;
  if (answer) {
    entry.dataset.answer = answer;
    entry.dataset.rank = item.rank;
  }
  return entry;
}

/** Grey cards that hold the place while a list loads. */
export function skeletons(count) {
  return Array.from({ length: count }, () =>
    el("li", { class: "skeleton", "aria-hidden": "true" }, el("span", { class: "card-photo" }), el("span", { class: "line" }), el("span", { class: "line short" })));
}

/** A message with what to do next; `action` is {label, run}. */
export function message(title, detail, action) {
  const box = el("div", { class: "message" }, el("h2", {}, title), el("p", {}, detail));
  if (action) {
    const button = el("button", { type: "button", class: "button" }, action.label);
    button.addEventListener("click", action.run);
    box.append(button);
  }
  return box;
}

/** Who shops: a person of the demo or this browser's own visitor, and what is told of them. */

import { tell } from "./client.js";

const OWN = "kindred-demo-visitor";
const CHOSEN = "kindred-demo-shopper";
const people = JSON.parse(document.querySelector('meta[name="kindred-visitors"]').content);

const random = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const session = random();

function own() {
  let id = localStorage.getItem(OWN);
  if (!id) localStorage.setItem(OWN, (id = random()));
  return id;
}

/** Everybody one may shop as: {name, visitor_id}; the browser's own visitor comes first. */
export const shoppers = [{ name: "You, a new visitor", visitor_id: own() }, ...people];

let chosen = shoppers.find((one) => one.visitor_id === sessionStorage.getItem(CHOSEN)) ?? shoppers[0];

export const shopper = () => chosen;

export function choose(visitorId) {
  chosen = shoppers.find((one) => one.visitor_id === visitorId) ?? shoppers[0];
  sessionStorage.setItem(CHOSEN, chosen.visitor_id);
}

/** Tell that an item was looked at; `from` is {recommendation_id, position} of the list it was found in. */
export function tellView(itemId, from) {
  const base = { visitor_id: chosen.visitor_id, session_id: session, item_id: itemId };
  return tell([...(from ? [{ ...base, ...from, type: "click" }] : []), { ...base, type: "view" }]);
}

/** The public API as this page uses it: three calls, one kind of error. */

const key = document.querySelector('meta[name="kindred-key"]').content;

export const FIELDS = [
  "title", "price", "sale_price", "currency", "brand", "seller_id",
  "categories", "language", "images", "description", "availability", "attributes",
];

/** What went wrong, in words that say what to do next. */
export class ApiError extends Error {
  constructor(status, title, detail) {
    super(title);
    this.status = status;
    this.detail = detail;
  }
}

async function post(path, body, signal) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${key}` },
      body: JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer", "Check that Kindred is still running, then try again.");
  }
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401) {
    throw new ApiError(401, "The shop's key is no longer valid", "Load this page again. If that does not help, run “kindred demo” once more.");
  }
  if (response.status === 429 || response.status === 503) {
    const wait = Number(response.headers.get("Retry-After"));
    const when = wait > 0 ? `in ${wait} second${wait === 1 ? "" : "s"}` : "in a moment";
    throw new ApiError(response.status, problem.title ?? "The server is busy", `Try again ${when}.`);
  }
  throw new ApiError(response.status, problem.title ?? `The server answered ${response.status}`, problem.detail ?? "Try again; the server's log has the reason.");
}

/** POST /v1/recommend; rejects with ApiError, or AbortError when `signal` fires. */
export const recommend = (body, signal) => post("/v1/recommend", { fields: FIELDS, ...body }, signal);

/** POST /v1/events; a page goes on when it fails, since nobody's click should. */
export const tell = (events) => post("/v1/events", { events }).catch(() => null);

/** POST /v1/search; as recommend. */
export const search = (body, signal) => post("/v1/search", { fields: FIELDS, ...body }, signal);

// Drives the app through a client typed by what was generated from its OpenAPI document; the compiler checks the types.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Schemas = components["schemas"];
type Operation = Schemas["Operation"];
type Role = "posted" | "refused" | "corrected" | "doubtful" | "slow" | "first" | "second" | "invalid";
interface Given {
  url: string;
  key: string;
  field: string;
  records: Record<Role, Schemas["NewBusiness"]>;
}

const given = JSON.parse(readFileSync(process.argv[2]!, "utf8")) as Given;
const { posted, refused, corrected, doubtful, slow, first, second, invalid } = given.records;
const app = createClient<paths>({ baseUrl: given.url, headers: { "x-functions-key": given.key } });

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}
function got<T>(answer: Answer<T>): T {
  assert(answer.data, `${answer.response.url}: ${JSON.stringify(answer.error)}`);
  return answer.data;
}
function started(answer: Answer<Operation | Schemas["Validation"]>): Operation {
  const data = got(answer);
  assert(!("valid" in data)); // this narrows the type: only a dry run says how many records are valid
  return data;
}
function validated(answer: Answer<Operation | Schemas["Validation"]>): Schemas["Validation"] {
  const data = got(answer);
  assert("valid" in data);
  return data;
}
const path = (id: string) => ({ path: { id } });
const patiently = { header: { Prefer: "wait=10" } };
const dry = { validate_only: true };
const text = (type: string, body: string) => ({
  body,
  bodySerializer: () => body,
  headers: { "Content-Type": type },
});

// start, look up
const start = started(
  await app.POST("/businesses", { body: posted, params: { header: { ...patiently.header, "Idempotency-Key": "ts 1" } } }),
);
const state: Schemas["State"] = start.state;
assert.equal(state, "posted");
const found = await app.GET("/businesses/operations/{id}", { params: { ...path(start.id), query: { wait: 10 } } });
const operation = got(found);
assert(operation.outcome?.outcome === "posted"); // this narrows the type: only what was posted has a business
const id: string | undefined = operation.outcome.id;
const business: Schemas["Business"] | undefined = operation.outcome.business;
assert(id && business);
assert(operation.outcome.warning === undefined && operation.may_be_stored === undefined);
const url: string | undefined = operation.business_url;
assert.equal(url, `/api/businesses/${id}`);
got(await app.GET("/businesses/{id}", { params: path(id) }));
const known = { "If-None-Match": found.response.headers.get("ETag")! };
const unchanged = await app.GET("/businesses/operations/{id}", { params: { ...path(start.id), header: known } });
assert.equal(unchanged.response.status, 304);

// retry with a correction, erase
const wrong = started(await app.POST("/businesses", { body: refused, params: patiently }));
assert(wrong.outcome?.outcome === "rejected");
const status: number = wrong.outcome.status;
assert.equal(status, 422);
got(await app.POST("/businesses/operations/{id}/retry", { params: path(wrong.id), body: corrected }));
const again = got(await app.GET("/businesses/operations/{id}", { params: { ...path(wrong.id), query: { wait: 10 } } }));
assert.equal(again.outcome?.outcome, "posted");

// list, page by page
const listed: string[] = [];
const query: NonNullable<paths["/businesses/operations"]["get"]["parameters"]["query"]> = { state: ["posted"], limit: 1 };
for (;;) {
  const page = got(await app.GET("/businesses/operations", { params: { query } }));
  listed.push(...page.operations.map((one) => one.id));
  if (page.next === undefined) break;
  const link = new URL(page.next, given.url).searchParams;
  query.since = link.get("since")!;
  query.cursor = link.get("cursor")!;
}
assert.deepEqual(listed.filter((one) => one === start.id || one === wrong.id).sort(), [start.id, wrong.id].sort());
const erased = await app.DELETE("/businesses/operations/{id}", { params: path(wrong.id) });
assert.equal(erased.response.status, 204);

// in doubt, cancelled
const { id: deferred } = started(await app.POST("/businesses", { body: doubtful }));
let waiting: Operation;
do {
  waiting = got(await app.GET("/businesses/operations/{id}", { params: { ...path(deferred), query: { wait: 0.5 } } }));
} while (waiting.state === "pending" || waiting.state === "running");
assert(waiting.outcome?.outcome === "deferred");
const seconds: number | undefined = waiting.outcome.retry_after;
assert.equal(seconds, 600);
const ended = got(await app.POST("/businesses/operations/{id}/cancel", { params: path(deferred) }));
assert.equal(ended.outcome?.outcome, "cancelled");
const doubt: boolean | undefined = ended.may_be_stored;
assert.equal(doubt, true);
const doubted = got(await app.GET("/businesses/operations", { params: { query: { may_be_stored: true } } }));
assert(doubted.operations.some((one) => one.id === deferred));
const retried = await app.POST("/businesses/operations/{id}/retry", { params: path(deferred), body: corrected });
assert.equal(retried.error?.status, 409);

// cancelled while under way
const running = started(await app.POST("/businesses", { body: slow }));
const stopping = got(await app.POST("/businesses/operations/{id}/cancel", { params: path(running.id) }));
const cancelling: boolean | undefined = stopping.cancelling;
assert.deepEqual([stopping.state, cancelling], ["running", true]);

// batch, as an array and as lines, and its results
const batch = started(
  await app.POST("/businesses/batch", {
    body: [first, invalid],
    params: { ...patiently, query: { skip_invalid: true } },
  }),
);
assert.deepEqual([batch.batch?.tally.posted, batch.batch?.tally.invalid], [1, 1]);
const skipped: Schemas["Skipped"][] | undefined = batch.skipped;
assert.equal(skipped?.[0]?.index, 1);
const results = got(await app.GET("/businesses/operations/{id}/results", { params: path(batch.id) }));
assert(typeof results !== "string"); // lines and CSV are
assert.deepEqual(results.results.map((one) => one.result.outcome), ["posted", "invalid"]);
const corrections: Schemas["Correction"][] = [{ index: 1, record: corrected }];
const mended = started(
  await app.POST("/businesses/operations/{id}/retry", { params: path(batch.id), body: corrections }),
);
assert.deepEqual([mended.id, mended.state], [batch.id, "pending"]);
started(await app.POST("/businesses/batch", text("application/x-ndjson", JSON.stringify(second))));

// dry runs
const valid: number = validated(await app.POST("/businesses", { body: posted, params: { query: dry } })).valid;
assert.equal(valid, 1);
const lines = text("application/x-ndjson", [first, invalid].map((one) => JSON.stringify(one)).join("\n"));
const part = validated(await app.POST("/businesses/batch", { ...lines, params: { query: { ...dry, skip_invalid: true } } }));
assert.deepEqual([part.valid, part.skipped?.[0]?.line, part.skipped_total], [1, 2, 1]);

// refusals
const refusal = await app.POST("/businesses/batch", { body: [first, invalid] });
assert.equal(refusal.response.status, 400);
const error: Schemas["FieldError"] | undefined = refusal.error?.errors?.[0];
assert.deepEqual([refusal.error?.status, error?.index, error?.field], [400, 1, given.field]);
const rows = await app.POST("/businesses/batch", { ...text("text/csv", "no such column\n"), params: { query: dry } });
assert.equal(rows.error?.errors?.[0]?.field, "no such column");
const stranger = createClient<paths>({ baseUrl: given.url });
assert.equal((await stranger.POST("/businesses", { body: posted })).response.status, 401);

// Drives the app through a client typed by what was generated from its OpenAPI document; the compiler checks the types.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type NewBusiness = components["schemas"]["NewBusiness"];
interface Given {
  url: string;
  key: string;
  field: string;
  records: [NewBusiness, NewBusiness, NewBusiness, NewBusiness, NewBusiness, NewBusiness, NewBusiness];
}

const given = JSON.parse(readFileSync(process.argv[2]!, "utf8")) as Given;
const [posted, refused, corrected, deferred, first, second, invalid] = given.records;
const app = createClient<paths>({ baseUrl: given.url, headers: { "x-functions-key": given.key } });

function got<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  assert(answer.data, `${answer.response.url}: ${JSON.stringify(answer.error)}`);
  return answer.data;
}
type Started = components["schemas"]["Operation"] | components["schemas"]["Validation"];
function operationOf(answer: { data?: Started; error?: unknown; response: Response }): components["schemas"]["Operation"] {
  const data = got(answer);
  assert(!("valid" in data)); // this narrows the type: only a dry run has another answer
  return data;
}
const path = (id: string) => ({ path: { id } });
const patiently = { header: { Prefer: "wait=10" } };

// start, look up, list
const started = operationOf(
  await app.POST("/businesses", { body: posted, params: { header: { ...patiently.header, "Idempotency-Key": "ts 1" } } }),
);
const state: components["schemas"]["State"] = started.state;
assert.equal(state, "posted");
const operation = got(
  await app.GET("/businesses/operations/{id}", { params: { ...path(started.id), query: { wait: 10 } } }),
);
assert(operation.outcome?.outcome === "posted"); // this narrows the type: only what was posted has a business
const id: string | undefined = operation.outcome.id;
const business: components["schemas"]["Business"] | undefined = operation.outcome.business;
assert(id && business);
assert(operation.outcome.warning === undefined && operation.may_be_stored === undefined);
got(await app.GET("/businesses/{id}", { params: path(id) }));
const page = got(
  await app.GET("/businesses/operations", { params: { query: { state: ["posted", "rejected"], limit: 10 } } }),
);
assert(page.operations.some((one) => one.id === started.id));

// retry, with a correction
const wrong = operationOf(await app.POST("/businesses", { body: refused, params: patiently }));
assert(wrong.outcome?.outcome === "rejected");
const status: number = wrong.outcome.status;
assert.equal(status, 422);
got(await app.POST("/businesses/operations/{id}/retry", { params: path(wrong.id), body: corrected }));
const again = got(await app.GET("/businesses/operations/{id}", { params: { ...path(wrong.id), query: { wait: 10 } } }));
assert.equal(again.outcome?.outcome, "posted");

// cancel
const waiting = operationOf(await app.POST("/businesses", { body: deferred, params: { header: { Prefer: "wait=1" } } }));
assert(waiting.outcome?.outcome === "deferred");
const seconds: number | undefined = waiting.outcome.retry_after;
assert.equal(seconds, 600);
const ended = got(await app.POST("/businesses/operations/{id}/cancel", { params: path(waiting.id) }));
assert.equal(ended.outcome?.outcome, "cancelled");

// batch, as an array and as lines, and its results
const batch = operationOf(
  await app.POST("/businesses/batch", {
    body: [first, invalid],
    params: { ...patiently, query: { skip_invalid: true } },
  }),
);
assert.deepEqual([batch.batch?.tally.posted, batch.batch?.tally.invalid], [1, 1]);
const skipped: components["schemas"]["Skipped"][] | undefined = batch.skipped;
assert.equal(skipped?.[0]?.index, 1);
const results = got(await app.GET("/businesses/operations/{id}/results", { params: path(batch.id) }));
assert.deepEqual(results.results.map((one) => one.result.outcome), ["posted", "invalid"]);
operationOf(
  await app.POST("/businesses/batch", {
    body: JSON.stringify(second),
    bodySerializer: (lines) => lines as string,
    headers: { "Content-Type": "application/x-ndjson" },
  }),
);

// refusals
const refusal = await app.POST("/businesses/batch", { body: [first, invalid] });
assert.equal(refusal.response.status, 400);
const error: components["schemas"]["FieldError"] | undefined = refusal.error?.errors?.[0];
assert.deepEqual([refusal.error?.status, error?.index, error?.field], [400, 1, given.field]);
const stranger = createClient<paths>({ baseUrl: given.url });
assert.equal((await stranger.POST("/businesses", { body: posted })).response.status, 401);

"use strict";

const key = document.querySelector("#key");

if (key) {
  key.value = sessionStorage.getItem("key") ?? "";
  key.addEventListener("input", () => sessionStorage.setItem("key", key.value));
}

const isJson = (text) => {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
};

const pretty = (text) => (isJson(text) ? JSON.stringify(JSON.parse(text), null, 2) : text);

/** What to send for a form: HTTP functions get what was typed, the others are run through the host's own routes. */
const requestOf = (form) => {
  const fields = new FormData(form);
  const headers = key?.value ? { "x-functions-key": key.value } : {};
  let path = fields.get("path");
  let method = fields.get("method") ?? "POST";
  let body = fields.get("body") ?? "";
  if (form.dataset.kind === "orchestration") {
    if (fields.get("id")) path += `/${encodeURIComponent(fields.get("id"))}`;
    // JSON inside a JSON text, as the SDK's client sends it: the only form in which an orchestrator can read any value.
    if (body) body = JSON.stringify(isJson(body) ? body : JSON.stringify(body));
  }
  if (form.dataset.kind === "admin") body = JSON.stringify({ input: body });
  if (method === "GET" || method === "HEAD" || body === "") body = undefined;
  else headers["content-type"] = isJson(body) ? "application/json" : "text/plain";
  return [new URL(path, location.origin), { method, headers, body }];
};

const show = (output, status, text, failed) => {
  const line = document.createElement("strong");
  line.textContent = status;
  const body = document.createElement("pre");
  body.textContent = text;
  output.replaceChildren(line, ...(text ? [body] : []));
  output.classList.toggle("failed", failed);
};

const call = async (form) => {
  const output = form.querySelector("output");
  const started = performance.now();
  form.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(...requestOf(form));
    const text = await response.text();
    const time = `${Math.round(performance.now() - started)} ms`;
    const location = response.headers.get("location");
    show(output, [response.status, response.statusText, time].filter(Boolean).join(" · "), pretty(text), !response.ok);
    if (form.dataset.kind === "orchestration" && response.ok) {
      const link = document.createElement("a");
      link.href = `/?instance=${encodeURIComponent(JSON.parse(text).id)}`;
      link.textContent = "Show this orchestration";
      output.lastChild.replaceWith(link);
    } else if (location) {
      output.append(`Location: ${location}`);
    }
  } catch (error) {
    show(output, "No answer", String(error), true);
  }
  form.removeAttribute("aria-busy");
  refresh();
};

/** Render the parts that change anew, except while somebody works in them. */
const refresh = async () => {
  if (document.hidden) return;
  let text;
  try {
    const response = await fetch(location.href);
    if (!response.ok) throw new Error(response.status);
    text = await response.text();
    document.body.removeAttribute("data-lost");
  } catch {
    document.body.setAttribute("data-lost", "");
    return;
  }
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    const busy = part.contains(document.activeElement) || !getSelection().isCollapsed;
    if (next && !busy && next.innerHTML !== part.innerHTML) part.replaceWith(document.adoptNode(next));
  }
};

for (const form of document.querySelectorAll("form[data-kind]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    call(form);
  });
}

if (document.querySelector("[data-live]")) setInterval(refresh, 2000);

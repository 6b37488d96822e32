"""The start page at `/`: sign in, my sessions, start, open, rest, end. One page without a framework.

It is a client like any other: it calls the API and has no rights of its own. Whatever it shows it shows as
text.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import Final

_STYLE: Final = """\
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--good:#1a7f4b;--warn:#b35c00}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1.5rem 1rem 4rem}
header{display:flex;gap:1rem;align-items:baseline;margin-bottom:1.2rem}
h1{font-size:1.25rem;margin:0;flex:1}h2{font-size:1rem;margin:2rem 0 .6rem}
table{width:100%;border-collapse:collapse}
th,td{text-align:left;padding:.5rem .6rem .5rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;font-size:.85rem}td:last-child,th:last-child{text-align:right;padding-right:0}
small{display:block;opacity:.75}code{background:var(--soft);padding:.1em .35em;border-radius:.3em}
button,input,select{font:inherit;padding:.35rem .7rem;border:1px solid var(--line);border-radius:.4rem;
background:transparent;color:inherit}
select option{color:#111;background:#fff}
button{cursor:pointer;margin-left:.35rem}button.main{background:#2456d6;border-color:#2456d6;color:#fff}
button:disabled{opacity:.5;cursor:default}
form{display:flex;flex-wrap:wrap;gap:.6rem;align-items:end}label{display:grid;gap:.2rem;font-size:.85rem}
#said{min-height:1.4em;margin:.8rem 0;color:var(--warn)}
.running{color:var(--good)}.warned{color:var(--warn);font-weight:600}
#login form{flex-direction:column;align-items:stretch;max-width:20rem;margin:12vh auto 0}
#login button{margin:0}
[hidden]{display:none!important}
:focus-visible{outline:2px solid #2456d6;outline-offset:2px}
@media(max-width:40rem){thead{display:none}td{display:block;border:0;padding:.1rem 0}
td:last-child{text-align:left}tr{display:block;padding:.6rem 0;border-bottom:1px solid var(--line)}}
"""

_SCRIPT: Final = """\
"use strict";
const at = (id) => document.getElementById(id);
const say = (text) => { at("said").textContent = text; };

async function ask(method, path, body) {
  const headers = {"x-argosy-api": "1"};
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch("/v1" + path, {
    method, headers, body: body && JSON.stringify(body), credentials: "same-origin", cache: "no-store",
  });
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said;
  const text = [said.what || answer.statusText, said.hint].filter(Boolean).join(". ");
  throw Object.assign(new Error(text), {status: answer.status, code: said.code});
}

function element(name, text, about) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  return Object.assign(made, about);
}

function show(signedIn) {
  at("login").hidden = signedIn;
  at("main").hidden = !signedIn;
  at("out").hidden = !signedIn;
}

function left(view) {
  if (!view.use || !view.use.rests_at_ms) return "";
  const minutes = Math.max(0, Math.round((view.use.rests_at_ms - Date.now()) / 60000));
  return "rests in " + (minutes < 120 ? minutes + " min" : Math.round(minutes / 60) + " h");
}

function act(text, todo, main) {
  const button = element("button", text, {type: "button", className: main ? "main" : ""});
  button.addEventListener("click", async () => {
    button.disabled = true;
    say("");
    try { await todo(); await look(); } catch (error) { say(error.message); }
    button.disabled = false;
  });
  return button;
}

function hostOf(reply) {
  const port = location.port ? ":" + location.port : "";
  const here = location.hostname;
  if (here === "localhost" || here.endsWith(".localhost") || here === "127.0.0.1" || here === "[::1]") {
    return reply.label + ".localhost" + port;
  }
  return reply.suffixes.length > 1 ? reply.label + "." + reply.suffixes[1] + port : "";
}

async function open_(view) {
  const reply = await ask("POST", "/sessions/" + encodeURIComponent(view.id) + "/open", {});
  const host = hostOf(reply);
  if (!host) throw new Error("This server has no domain for apps. Try: argosy session open " + view.name);
  const form = element("form", "", {method: "post", target: "_blank", rel: "noopener"});
  form.action = location.protocol + "//" + host + "/.argosy/enter";
  form.append(element("input", "", {type: "hidden", name: "code", value: reply.code}));
  document.body.append(form);
  form.submit();
  form.remove();
}

function row(view) {
  const path = "/sessions/" + encodeURIComponent(view.id);
  const made = element("tr");
  const name = element("td");
  name.append(element("strong", view.name), element("small", view.title || view.app));
  const state = element("td");
  state.append(element("span", view.status, {className: view.status}));
  if (view.detail) state.append(element("small", view.detail));
  const rest = element("td", left(view), {className: view.use && view.use.warned_ms ? "warned" : ""});
  const acts = element("td");
  if (view.status === "running" && view.is_proxied) acts.append(act("Open", () => open_(view), true));
  if (view.status === "running" && !view.is_proxied) {
    acts.append(element("code", "argosy session open " + view.name));
  }
  if (view.use && view.use.warned_ms) acts.append(act("More time", () => ask("POST", path + "/snooze", {})));
  if (view.status === "resting") acts.append(act("Start", () => ask("POST", path + "/start"), true));
  if (["running", "starting", "queued"].includes(view.status)) {
    acts.append(act("Rest", () => ask("POST", path + "/stop")));
  }
  acts.append(act("End", async () => {
    if (confirm("End the session " + view.name + " for good?")) await ask("DELETE", path);
  }));
  made.append(name, state, element("td", view.resources === "default" ? "" : view.resources), rest, acts);
  return made;
}

async function look() {
  try {
    const found = await ask("GET", "/sessions");
    show(true);
    at("none").hidden = found.sessions.length > 0;
    at("list").hidden = !found.sessions.length;
    if (!at("rows").contains(document.activeElement)) {
      at("rows").replaceChildren(...found.sessions.map(row));
    }
    if (!at("app").options.length) {
      const apps = (await ask("GET", "/apps")).apps;
      const option = (app) => element("option", app.title || app.name, {value: app.name});
      at("app").replaceChildren(...apps.map(option));
      at("app").value = "jupyter";
    }
  } catch (error) {
    if (error.status === 401) show(false); else say(error.message);
  }
}

at("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  say("");
  const idle = {after_s: Number(at("idle").value) || null};
  const wish = {app: at("app").value, name: at("name").value.trim(), idle};
  const [model, count] = at("gpus").value.trim().split(":");
  if (model) {
    wish.task = {resources: [{accelerator: {model, milli: Math.round(Number(count || 1) * 1000)}}]};
  }
  at("go").disabled = true;
  try {
    await ask("POST", "/sessions", wish);
    at("name").value = "";
    await look();
  } catch (error) {
    say(error.message);
  }
  at("go").disabled = false;
});

at("login").querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  say("");
  try {
    const wish = {user: at("user").value, password: at("password").value, code: at("factor").value};
    await ask("POST", "/login", wish);
    at("password").value = at("factor").value = "";
    await look();
  } catch (error) {
    if (error.code === "second-factor") at("second").hidden = false;
    say(error.message);
  }
});

at("out").addEventListener("click", async () => {
  await ask("POST", "/logout").catch(() => undefined);
  show(false);
});

(async () => {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (code) {
    history.replaceState(null, "", "/");
    await ask("POST", "/login/code", {code}).catch((error) => say(error.message));
  }
  await look();
  setInterval(() => { if (!document.hidden && !at("main").hidden) look(); }, 4000);
})();
"""

_BODY: Final = """\
<header><h1>Argosy</h1><button id=out type=button hidden>Sign out</button></header>
<p id=said role=status aria-live=polite></p>
<main id=main hidden>
<table id=list hidden><thead><tr><th>Session<th>Status<th>Has<th>Unused<th>Actions</thead>
<tbody id=rows></tbody></table>
<p id=none hidden>No sessions yet.</p>
<h2>Start a session</h2>
<form id=start>
<label>App <select id=app></select></label>
<label>Name <input id=name size=14 placeholder="by its app" autocomplete=off></label>
<label>GPUs <input id=gpus size=12 placeholder="A100:0.5" autocomplete=off></label>
<label>Rest when unused for <select id=idle>
<option value=1800>30 minutes<option value=7200 selected>2 hours<option value=28800>8 hours
<option value=0>never</select></label>
<button id=go class=main>Start</button>
</form>
</main>
<section id=login hidden><form>
<label>User <input id=user autocomplete=username required></label>
<label>Password <input id=password type=password autocomplete=current-password required></label>
<label id=second hidden>Code of your authenticator
<input id=factor autocomplete=one-time-code inputmode=numeric></label>
<button class=main>Sign in</button>
</form></section>
"""


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


@functools.cache
def page(apps: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The page and the fields of its answer. `apps`: hosts of apps, to which it may send forms."""
    body = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Argosy</title>"
        f'<meta name=viewport content="width=device-width"><style>{_STYLE}</style>\n{_BODY}'
        f"<script>{_SCRIPT}</script>\n"
    ).encode()
    policy = (
        f"default-src 'none'; script-src {_digest(_SCRIPT)}; style-src {_digest(_STYLE)}; "
        f"connect-src 'self'; form-action {apps}; base-uri 'none'; frame-ancestors 'none'"
    )
    fields = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy.encode()),
        (b"cache-control", b"no-cache"),
        (b"content-length", str(len(body)).encode()),
    ]
    return body, fields

"use strict";
const at = (id) => document.getElementById(id);
const COMING = ["queued", "starting", "stopping", "ending", "recovering"];
const STREAM_S = 25;
let me = "", seen = "", found = [], apps = [], stream = null;

function say(text) {
  at("said").hidden = !text;
  const words = text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));
  at("said").replaceChildren(...(text ? [element("p", {}, ...words), button("Close", () => say(""))] : []));
}

async function ask(method, path, body, signal) {
  const headers = {"x-argosy-api": "1"};
  if (body) headers["content-type"] = "application/json";
  const wish = {method, headers, signal, body: body && JSON.stringify(body), credentials: "same-origin", cache: "no-store"};
  const answer = await fetch("/v1" + path, wish).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw Object.assign(new Error("The server does not answer. It is asked again by itself."), {isAway: true});
  });
  if (answer.ok) return path.includes("format=text") ? answer.text() : answer.json();
  const said = await answer.json().catch(() => ({}));
  const text = [said.what || answer.statusText, said.hint].filter(Boolean).map(sentence).join(" ");
  throw Object.assign(new Error(text), {status: answer.status, code: said.code});
}

function sentence(text) {
  const plain = text.charAt(0).toUpperCase() + text.slice(1).replace(/\.$/, "");
  return /[?!]$/.test(plain) ? plain : plain + ".";
}

function element(name, about, ...inside) {
  const made = Object.assign(document.createElement(name), about);
  made.append(...inside.filter(Boolean)); // text stays text
  return made;
}

function button(text, todo, look = "") {
  const made = element("button", {type: "button", className: look}, text);
  made.addEventListener("click", async () => {
    made.disabled = true;
    try { await todo(); } catch (error) { say(error.message); }
    made.disabled = false;
  });
  return made;
}

function act(view, text, todo, look) {
  const made = button(text, async () => { say(""); await todo(); await look_(); }, look);
  made.dataset.key = view.id + " " + text;
  made.setAttribute("aria-label", text + ": " + view.name);
  return made;
}

function show(isIn) {
  at("login").hidden = isIn;
  for (const id of ["main", "out"]) at(id).hidden = !isIn;
  if (!isIn) {
    at("who").textContent = "";
    stream?.abort();
    at("user").focus();
  }
}

// ---- a dialog: closes by Escape, by its button, or when what it is for is done

function dialog(title, inside, isWide = false) {
  const close = element("div", {className: "acts"}, button("Close", () => at("asked").close()));
  at("asked").className = isWide ? "wide" : "";
  at("asked").replaceChildren(element("h2", {id: "title"}, title), ...inside, close);
  if (!at("asked").open) at("asked").showModal();
}

// ---- sessions

function span(ms) {
  const minutes = Math.max(0, Math.round(ms / 60000));
  return minutes < 120 ? minutes + " min" : Math.round(minutes / 60) + " h";
}

function left(view) {
  return view.use?.rests_at_ms ? (view.use.ends ? "ends" : "rests") + " in " + span(view.use.rests_at_ms - Date.now()) : "";
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
  const reply = await ask("POST", pathOf(view) + "/open", {});
  const host = hostOf(reply);
  if (!host) throw new Error("This server has no domain for apps. On your machine: argosy session open " + view.name);
  const form = element("form", {method: "post", target: "_blank", rel: "noopener", action: location.protocol + "//" + host + "/.argosy/enter"},
    element("input", {type: "hidden", name: "code", value: reply.code}));
  document.body.append(form);
  form.submit();
  form.remove();
}

const pathOf = (view) => "/sessions/" + encodeURIComponent(view.id);

async function log(view) {
  const text = await ask("GET", "/jobs/" + encodeURIComponent(view.job) + "/logs?format=text&tail=200");
  const plain = text.replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-~])/g, "");
  const pre = element("pre", {tabIndex: 0}, plain.trim() || "It has printed nothing.");
  dialog("What " + view.name + " says", [pre], true);
  pre.scrollTop = pre.scrollHeight;
}

function share(view) {
  const who = element("input", {required: true, placeholder: "ben, or project:vision", autocomplete: "off"});
  const long = element("select", {}, ...[[3600, "1 hour"], [28800, "8 hours"], [86400, "a day"], [604800, "a week"]]
    .map(([value, text]) => element("option", {value}, text)));
  long.value = "28800";
  const form = element("form", {className: "row"}, element("label", {}, "Who", who), element("label", {}, "For", long),
    element("button", {className: "main"}, "Share"));
  const set = async (name, seconds) => {
    try {
      await ask("POST", pathOf(view) + "/share", {who: name, seconds});
      await look_();
      share(found.find((one) => one.id === view.id) || view);
    } catch (error) { say(error.message); at("asked").close(); }
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); set(who.value.trim(), Number(long.value)); });
  const now = (view.shares || []).filter((one) => one.until_ms > Date.now());
  const list = element("ul", {}, ...now.map((one) => element("li", {}, element("span", {}, one.who),
    element("small", {}, "for " + span(one.until_ms - Date.now())), button("Remove", () => set(one.who, 0)))));
  const about = "Whoever it is shared with may open its app and do in it what you can do. They cannot rest or end it.";
  dialog("Share " + view.name, [element("p", {className: "soft"}, about), list, form]);
}

function endOf(view) {
  const sure = button("End it", async () => {
    at("asked").close();
    await ask("DELETE", pathOf(view));
    await look_();
  }, "main");
  const about = "Its programs end, and it leaves this list for good. Rest ends its programs, too, and keeps it here.";
  dialog("End " + view.name + "?", [element("p", {}, about), sure]);
}

function row(view) {
  const isOthers = Boolean(view.user) && view.user !== me;
  const isMine = !isOthers || !(view.shares || []).some((one) => one.who === me || one.who.startsWith("project:"));
  const about = [view.title && view.title !== view.name ? view.title : "", view.resources === "default" ? "" : view.resources,
    isOthers ? "of " + view.user : ""].filter(Boolean).join(" · ");
  const name = element("div", {}, element("strong", {}, view.name), about && element("small", {}, about));
  const coming = COMING.includes(view.status) ? " coming" : "";
  const state = element("div", {}, element("span", {className: "status " + view.status + coming}, view.status));
  const rest = element("small", {className: view.use?.warned_ms ? "warned" : "", title: view.use?.why || ""}, left(view));
  rest.dataset.left = view.id;
  if (view.use?.rests_at_ms) state.append(rest);
  if (view.detail) state.append(element("small", {}, view.detail));
  const acts = element("div", {className: "acts"});
  const isUp = view.status === "running";
  if (isUp && view.is_proxied) acts.append(act(view, "Open", () => open_(view), "main"));
  if (isUp && !view.is_proxied) state.append(element("small", {}, element("code", {}, "argosy session open " + view.name)));
  if (view.use?.warned_ms) acts.append(act(view, "More time", () => ask("POST", pathOf(view) + "/snooze", {})));
  if (view.status === "resting") acts.append(act(view, "Start", () => ask("POST", pathOf(view) + "/start"), "main"));
  if (view.job) acts.append(act(view, "Log", () => log(view)));
  if (isUp && view.is_proxied && isMine) acts.append(act(view, "Share", () => share(view)));
  if (isMine && ["running", "starting", "queued"].includes(view.status)) {
    acts.append(act(view, "Rest", () => ask("POST", pathOf(view) + "/stop")));
  }
  if (isMine) acts.append(act(view, "End", () => endOf(view), "end"));
  return element("li", {}, name, state, acts);
}

async function look_() {
  found = (await ask("GET", "/sessions")).sessions;
  const text = JSON.stringify(found);
  at("none").hidden = found.length > 0;
  if (text === seen) return;
  seen = text;
  const key = document.activeElement?.dataset?.key;
  at("rows").replaceChildren(...found.map(row));
  if (key) [...at("rows").querySelectorAll("button")].find((one) => one.dataset.key === key)?.focus();
  const coming = found.filter((one) => COMING.includes(one.status)).length;
  document.title = coming ? "… Argosy" : "Argosy";
}

function count() {
  for (const each of at("rows").querySelectorAll("[data-left]")) {
    const view = found.find((one) => one.id === each.dataset.left);
    if (view) each.textContent = left(view);
  }
}

// ---- the server's events: one request that waits; nothing is polled

async function follow() {
  stream?.abort();
  const own = stream = new AbortController();
  let after = 0, isAway = false;
  while (!own.signal.aborted) {
    try {
      if (!after) after = (await ask("GET", "/events?limit=1", null, own.signal)).events.at(-1)?.seq || 0;
      await look_();
      if (isAway) say("");
      isAway = false;
      const wait = found.some((one) => COMING.includes(one.status)) ? 2 : STREAM_S;
      const news = (await ask("GET", "/events?after=" + after + "&wait_s=" + wait, null, own.signal)).events;
      after = news.at(-1)?.seq || after;
      if (!after) await new Promise((done) => setTimeout(done, 1000));
    } catch (error) {
      if (own.signal.aborted || error.name === "AbortError") return;
      if (error.status === 401) return show(false);
      isAway = true;
      say(error.message);
      await new Promise((done) => setTimeout(done, 3000));
    }
  }
}

async function enter() {
  try {
    me = (await ask("GET", "/whoami")).name || "";
  } catch (error) {
    if (error.status !== 401) say(error.message);
    return show(false);
  }
  show(true);
  at("who").textContent = me;
  follow();
  apps = (await ask("GET", "/apps").catch(() => ({apps: []}))).apps;
  at("app").replaceChildren(...apps.map((app) => element("option", {value: app.name}, app.title || app.name)));
  at("app").value = "jupyter";
  about();
  const pools = (await ask("GET", "/pools").catch(() => ({pools: []}))).pools;
  const models = new Set(pools.flatMap((pool) => (pool.machines || []).flatMap((one) => (one.devices || []).map((each) => each.model))));
  at("models").replaceChildren(...[...models].filter(Boolean).flatMap((model) => [model + ":1", model + ":0.5"])
    .map((value) => element("option", {value})));
}

function about() {
  at("about").textContent = apps.find((app) => app.name === at("app").value)?.about || "";
}

// ---- forms

function form(id, todo) {
  (at(id).tagName === "FORM" ? at(id) : at(id).querySelector("form")).addEventListener("submit", async (event) => {
    event.preventDefault();
    say("");
    const main = event.target.querySelector("button:not([type=button])");
    main.disabled = true;
    try { await todo(); } catch (error) { say(error.message); }
    main.disabled = false;
  });
}

form("start", async () => {
  const wish = {app: at("app").value, name: at("name").value.trim(), idle: {after_s: Number(at("idle").value)}};
  const [model, amount] = at("gpus").value.trim().split(":");
  if (model) {
    const milli = Math.round(Number(amount || 1) * 1000);
    if (!(milli > 0)) throw new Error("GPUs are written as MODEL:COUNT, such as A100:1 or A100:0.5.");
    wish.task = {resources: [{accelerator: {model, milli}}]};
  }
  await ask("POST", "/sessions", wish);
  at("name").value = "";
  await look_();
});

form("login", async () => {
  try {
    await ask("POST", "/login", {user: at("user").value, password: at("password").value, code: at("factor").value});
  } catch (error) {
    if (error.code === "second-factor") {
      at("second").hidden = false;
      at("factor").focus();
    }
    throw error;
  }
  at("password").value = at("factor").value = "";
  await enter();
});

form("device", async () => {
  const code = at("shown").value.trim();
  const waits = await ask("POST", "/login/device/confirm", {code, look: true});
  const text = waits.host + " at " + (waits.address || "this machine") + " wants to be let in as " + me + ".";
  dialog("Let it in?", [element("p", {}, text), button("Let it in", async () => {
    at("asked").close();
    await ask("POST", "/login/device/confirm", {code});
    at("shown").value = "";
  }, "main")]);
});

at("app").addEventListener("change", about);
at("out").addEventListener("click", async () => {
  await ask("POST", "/logout").catch(() => undefined);
  seen = "";
  show(false);
});

(async () => {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (code) {
    history.replaceState(null, "", "/");
    await ask("POST", "/login/code", {code}).catch((error) => say(error.message));
  }
  await enter();
  setInterval(count, 10000);
})();

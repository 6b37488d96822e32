"use strict";
const assert = require("node:assert");
const fs = require("node:fs");
const http = require("node:http");
const os = require("node:os");
const path = require("node:path");
const { test } = require("node:test");
const { Failure, ask, sentence } = require("../src/api");
const { environment, locate, socketPath } = require("../src/location");
const { follow, gathered } = require("../src/news");

const folder = () => fs.mkdtempSync(path.join(os.tmpdir(), "argosy-vsc-"));

async function serving(answer, act) {
  const home = folder();
  fs.mkdirSync(path.join(home, "run"));
  const server = http.createServer(answer).listen(path.join(home, "run", "server.sock"));
  await new Promise((resolve) => server.once("listening", resolve));
  try {
    return await act(locate({ ARGOSY_HOME: home }));
  } finally {
    server.closeAllConnections();
    server.close();
    fs.rmSync(home, { recursive: true });
  }
}

const reply = (answer, status, told) => {
  answer.writeHead(status, { "content-type": "application/json" });
  answer.end(JSON.stringify(told));
};

test("the server is found as the command line finds it", () => {
  assert.equal(locate({ HOME: "/root" }).socket, "/root/.argosy/run/server.sock");
  assert.equal(locate({ ARGOSY_SERVER: "unix:///run/a.sock", HOME: "/h" }).socket, "/run/a.sock");
  const elsewhere = locate({ ARGOSY_SERVER: "https://argosy.example/team/", HOME: "/h" });
  assert.deepEqual([elsewhere.host, elsewhere.port, elsewhere.tls, elsewhere.prefix], ["argosy.example", 443, true, "/team"]);
  assert.equal(locate({ ARGOSY_SERVER: "gpu:7421", HOME: "/h" }).address, "http://gpu:7421");
  assert.throws(() => locate({ ARGOSY_SERVER: "http://ann:pw@gpu", HOME: "/h" }), /is not an address. Write https/);
  const far = socketPath("/" + "x".repeat(200), 7);
  assert.match(far, /^\/tmp\/argosy-7\/[0-9a-f]{24}\.sock$/);
  assert.equal(environment({ PATH: "/bin", ARGOSY_SERVER: "http://a" }, { server: "http://b" }).ARGOSY_SERVER, "http://b");
});

test("the token is that of `argosy login`, for this server only", () => {
  const home = folder();
  fs.writeFileSync(path.join(home, "sign-ins.json"), JSON.stringify({ "http://gpu:7421": "argosy_pat_x" }));
  assert.equal(locate({ ARGOSY_HOME: home, ARGOSY_SERVER: "http://gpu:7421" }).token, "argosy_pat_x");
  assert.equal(locate({ ARGOSY_HOME: home, ARGOSY_SERVER: "http://evil:7421" }).token, "");
  assert.equal(locate({ ARGOSY_HOME: home, ARGOSY_SERVER: "http://gpu:7421", ARGOSY_TOKEN: "own" }).token, "own");
  assert.equal(locate({ ARGOSY_HOME: home }).token, "");
  fs.rmSync(home, { recursive: true });
});

test("a request says who asks, and its answer is JSON", async () => {
  const seen = [];
  const told = await serving((request, answer) => {
    seen.push([request.method, request.url, request.headers["x-argosy-api"], request.headers["x-argosy-project"]]);
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", () => reply(answer, 200, { got: JSON.parse(body) }));
  }, (place) => ask({ ...place, project: "vision" }, "POST", "/sessions/a/snooze", { body: { minutes: 5 } }));
  assert.deepEqual(told, { got: { minutes: 5 } });
  assert.deepEqual(seen, [["POST", "/v1/sessions/a/snooze", "1", "vision"]]);
});

test("errors are the fact and what to do", async () => {
  const refused = await serving(
    (request, answer) => reply(answer, 404, { code: "not-found", what: "there is no session `x`", hint: "`argosy session ls` lists them" }),
    (place) => ask(place, "GET", "/sessions/x").catch((error) => error));
  assert.ok(refused instanceof Failure);
  assert.equal(refused.message, "There is no session `x`. `argosy session ls` lists them.");
  assert.deepEqual([refused.code, refused.status], ["not-found", 404]);
  const away = await ask(locate({ ARGOSY_HOME: "/nowhere" }), "GET", "/status").catch((error) => error);
  assert.equal(away.code, "server-unreachable");
  assert.match(away.message, /cannot be reached: it does not run\. `argosy status` starts it\.$/);
  const odd = await serving((request, answer) => answer.end("<html>"), (place) => ask(place, "GET", "/status").catch((e) => e));
  assert.equal(odd.code, "internal");
  assert.equal(sentence("it broke.", "mend it"), "It broke. Mend it.");
  assert.equal(sentence("unknown field `a`", "did you mean `b`?"), "Unknown field `a`. Did you mean `b`?");
});

test("events are waited for, and a server that was away is asked anew", async () => {
  const asked = [];
  const stop = new AbortController();
  const answers = [
    { events: [{ seq: 4 }] }, { events: [] }, { events: [{ seq: 5 }, { seq: 6 }] }, new Error("gone"), { events: [] },
  ];
  const heard = [];
  const lost = [];
  await follow({
    ask: async (target, { signal }) => {
      asked.push(target);
      const next = answers.shift();
      if (next === undefined) {
        stop.abort();
        throw new Error(String(signal.aborted));
      }
      if (next instanceof Error) throw next;
      return next;
    },
    heard: (events) => heard.push(events.map((one) => one.seq)),
    lost: (error) => lost.push(error.message),
    sleep: async (ms) => lost.push(ms),
    signal: stop.signal,
  });
  assert.deepEqual(asked, [
    "/events?limit=1", "/events?after=4&wait_s=30", "/events?after=4&wait_s=30", "/events?after=6&wait_s=30",
    "/events?limit=1", "/events?after=0&wait_s=30",
  ]);
  assert.deepEqual(heard, [[], [5, 6], []]);
  assert.deepEqual(lost, ["gone", 1000]);
});

test("many news are one look, and one more for what came meanwhile", async () => {
  let looks = 0;
  let let_go;
  const timers = { setTimeout: (act) => (queueMicrotask(act), 1), clearTimeout: () => undefined };
  const look = gathered(() => {
    looks += 1;
    return new Promise((resolve) => (let_go = resolve));
  }, 0, timers);
  look();
  look();
  look();
  await new Promise(setImmediate);
  assert.equal(looks, 1);
  look();
  look();
  await new Promise(setImmediate);
  assert.equal(looks, 1, "never two at a time");
  let_go();
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assert.equal(looks, 2);
});

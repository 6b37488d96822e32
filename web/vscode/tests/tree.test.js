"use strict";
const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const { test } = require("node:test");
const program = require("../src/program");
const { groups, summary, warnings } = require("../src/tree");

const NOW = 1_700_000_000_000;
const FOUND = {
  clusters: [{ id: "clu-1", name: "dev", project: "default", status: "running", infra: "local", resources: "A100:1", num_nodes: 1, jobs_running: 2, price_micro_usd: 1_500_000 },
    { id: "clu-2", name: "big", project: "vision", status: "queued", infra: "", resources: "default", num_nodes: 2 }],
  jobs: [{ id: "job-1", number: 7, name: "train", cluster: null, managed: true, status: "running", phase: "running", recoveries: 2, resources: "H100:8" },
    { id: "job-2", number: 6, name: "", cluster: null, managed: true, status: "failed", phase: "finished", detail: "exit status 3", exit_code: 3, resources: "default" }],
  services: [{ id: "svc-1", name: "chat", status: "ready", ready: 2, wanted: 2, requests_milli_per_s: 1500, endpoint: "http://x" }],
  sessions: [{ id: "ses-1", name: "lab", title: "JupyterLab", status: "running", is_proxied: true, job: "job-9", resources: "A100:0.5", use: { rests_at_ms: NOW + 12 * 60_000, warned_ms: 5, why: "nobody used it for 30m" } },
    { id: "ses-2", name: "shell", title: "Terminal", status: "resting", is_proxied: false, job: "", resources: "default", use: {} }],
};

const rows = (found) => Object.fromEntries(groups(found, NOW).map((one) => [one.kind, one.children]));

test("what the tree shows", () => {
  const { clusters, jobs, services, sessions } = rows(FOUND);
  assert.deepEqual(clusters.map((one) => [one.label, one.description, one.context]), [
    ["dev", "running · local · A100:1 · 2 running", "cluster.running"], ["vision/big", "queued", "cluster.queued"]]);
  assert.equal(clusters[0].tooltip, "1 node\n$1.50 an hour");
  assert.deepEqual(jobs.map((one) => [one.label, one.description, one.context]), [
    ["train (7)", "running · H100:8 · recovered 2 times", "job.live.log"], ["job (6)", "failed", "job.done.log"]]);
  assert.equal(jobs[1].tooltip, "exit status 3\nexit status 3");
  assert.equal(services[0].description, "ready · 2/2 ready · 1.5 requests/s");
  assert.deepEqual(sessions.map((one) => [one.description, one.context, one.icon]), [
    ["JupyterLab · running · A100:0.5 · rests in 12 min", "session.running.web.log", "warning"],
    ["Terminal · resting", "session.resting.plain", "debug-pause"]]);
});

test("empty and forbidden lists say so", () => {
  const made = groups({ refused: { services: "you may not see these" } }, NOW);
  assert.deepEqual(made.map((one) => one.description), ["No clusters", "No managed jobs", "you may not see these", "No sessions"]);
});

test("the status bar counts what runs", () => {
  assert.equal(summary(FOUND), "1 cluster, 1 job, 1 service, 1 session");
  assert.equal(summary({}), "");
});

test("a warning is told once", () => {
  const told = new Map();
  assert.deepEqual(warnings(FOUND, told).map((one) => one.name), ["lab"]);
  told.set("ses-1", 5);
  assert.deepEqual(warnings(FOUND, told), []);
});

test("what argosy is called with", () => {
  const { clusters, jobs, services, sessions } = rows(FOUND);
  const ofCluster = { kind: "job", name: "2 t", view: { cluster: "dev", number: 2 } };
  assert.deepEqual([jobs[0], ofCluster, services[0], sessions[0]].map(program.logOf), [
    ["jobs", "logs", "7"], ["logs", "dev", "2"], ["serve", "logs", "chat"], ["session", "logs", "-f", "lab"]]);
  assert.deepEqual([clusters[1], jobs[0], ofCluster, services[0], sessions[0]].map(program.endOf), [
    ["down", "-y", "vision/big"], ["jobs", "cancel", "-y", "7"], ["cancel", "-y", "dev", "2"], ["serve", "down", "-y", "chat"], ["session", "end", "-y", "lab"]]);
  assert.deepEqual([clusters[1], clusters[0], sessions[0]].map(program.sshHost), ["big.vision", "dev", "lab.argosy"]);
  assert.deepEqual(program.terminalOf(sessions[1]), ["session", "open", "shell", "--as", "terminal"]);
  assert.deepEqual(program.launchOf("/w/a.yaml", { how: "cluster", cluster: "dev" }), ["launch", "-c", "dev", "/w/a.yaml"]);
  assert.deepEqual(program.launchOf("/w/a.yaml", { how: "job" }), ["jobs", "launch", "/w/a.yaml"]);
  assert.deepEqual(program.startOf({ app: "jupyter", gpus: "A100:0.5", idle: "30m" }), ["session", "start", "jupyter", "--detach", "--json", "--gpus", "A100:0.5", "--idle", "30m"]);
  assert.equal(program.shown(["launch", "my file.yaml", "it's"]), "launch 'my file.yaml' 'it'\\''s'");
});

test("what argosy says when it fails", () => {
  const told = program.problemOf('warning: old prices\n{"code":"spec-invalid","what":"unknown field `a`","hint":"b","where":"/w/t.yaml:2:1"}\n');
  assert.deepEqual([told.what, program.placeOf(told.where)], ["unknown field `a`", { file: "/w/t.yaml", line: 1, column: 0 }]);
  assert.deepEqual(program.problemOf("error: it broke\nhint: mend it\n"), { code: "failed", what: "it broke", hint: "mend it" });
  assert.equal(program.placeOf("command line"), null);
});

test("a channel shows text, whatever a program says to a terminal", () => {
  const said = "\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\ \x1bcend\n10 %\r20 %\rdone\r\n";
  assert.equal(program.plain(said), "red link end\ndone\r\n");
});

test("the manifest names what there is", () => {
  const manifest = JSON.parse(fs.readFileSync(path.join(__dirname, "..", "package.json"), "utf8"));
  const { commands, menus, viewsWelcome } = manifest.contributes;
  const names = new Set(commands.map((one) => one.command));
  const source = fs.readFileSync(path.join(__dirname, "..", "src", "commands.js"), "utf8");
  for (const name of names) assert.match(source, new RegExp(`\\b${name.replace("argosy.", "")}\\b`), name);
  for (const list of Object.values(menus)) for (const one of list) assert.ok(names.has(one.command), one.command);
  for (const one of viewsWelcome) for (const [, name] of one.contents.matchAll(/command:([\w.]+)/g)) assert.ok(names.has(name), name);
  assert.equal(manifest.dependencies, undefined);
  // every row that can be acted on is matched by the menu that acts on it
  const context = menus["view/item/context"];
  const matches = (command, value) => context.filter((one) => one.command === command)
    .some((one) => new RegExp(/\/(.*)\/$/.exec(one.when)[1].replace(/\/ .*$/, "")).test(value));
  assert.ok(matches("argosy.openSession", "session.running.web.log") && !matches("argosy.openSession", "session.running.plain.log"));
  assert.ok(matches("argosy.showLog", "job.done.log") && !matches("argosy.showLog", "cluster.running"));
});

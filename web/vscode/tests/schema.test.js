"use strict";
const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const { test } = require("node:test");
const { aboutAt, completions, findings, isService, isTask } = require("../src/schema");
const { keysOf, placeAt } = require("../src/yaml");

const REPO = path.join(__dirname, "..", "..", "..");
const SCHEMA = JSON.parse(fs.readFileSync(path.join(REPO, "docs", "generated", "task.schema.json"), "utf8"));

/** Completions at the `|` of the text. */
function at(text) {
  const before = text.slice(0, text.indexOf("|")).split("\n");
  return completions(SCHEMA, text.replace("|", ""), before.length - 1, before[before.length - 1].length);
}
const labels = (text) => at(text).map((one) => one.label);

test("keys and where they stand", () => {
  const text = "name: a\nresources:\n  any_of:\n  - infra: aws\n    gpus: 1\n  -   infra: gcp\nrun: |\n  key: no\n\n  - x: no\nenvs: {A: b}\n'odd key': 1\n---\nname: b\n";
  assert.deepEqual(keysOf(text).map((one) => [...one.path, one.key].join(".")), [
    "name", "resources", "resources.any_of", "resources.any_of.*.infra", "resources.any_of.*.gpus", "resources.any_of.*.infra",
    "run", "envs", "odd key", "name"]);
  assert.equal(placeAt("run: |\n  x", 1, 3), null, "inside a program");
  assert.equal(placeAt("# re", 0, 4), null);
});

test("what may be written at a place", () => {
  assert.ok(labels("na|").includes("name"));
  assert.ok(!labels("name: a\n|").includes("name"), "not twice");
  assert.ok(labels("name: a\n---\n|").includes("name"), "but in another task");
  assert.ok(labels("resources:\n  |").includes("accelerators"));
  assert.ok(labels("resources:\n  cpus: 4\n  acc|\nrun: x").includes("accelerators"));
  assert.ok(labels("resources:\n  any_of:\n    - |").includes("infra"));
  assert.deepEqual(labels("resources:\n  use_spot: |"), ["true", "false"]);
  assert.ok(labels("when: |").includes("always"));
  assert.deepEqual(labels("run: |"), []);
  const found = at("res|").find((one) => one.label === "resources");
  assert.equal(found.insert, "resources:\n  ");
  assert.ok(!labels("|").includes("_metadata"));
  assert.match(at("nu|").find((one) => one.label === "num_nodes").about, /Nodes that start together/);
});

test("texts about keys", () => {
  assert.match(aboutAt(SCHEMA, "run: echo", 0, 1), /Shell commands/);
  assert.equal(aboutAt(SCHEMA, "run: echo", 0, 7), "");
});

test("what is wrong is told, and what may be right is not", () => {
  const texts = (text) => findings(SCHEMA, text).map((one) => one.text);
  assert.deepEqual(texts("resorces:\n  cpus: 2\nrun: x\n"), ["There is no field `resorces` here. Did you mean `resources`?"]);
  assert.deepEqual(texts("resources:\n  use_spot: maybe\n"), ["`use_spot` wants true or false."]);
  assert.match(texts("when: sometimes\n")[0], /`when` is one of `always`/);
  assert.deepEqual(texts("num_nodes: 2-8\nrun: x\nenvs:\n  ANY: 1\n  OTHER: two words\n"), []);
  assert.deepEqual(texts("num_nodes: 2\nresources:\n  cpus: 4+\n  accelerators: {A100: 1}\n"), []);
  assert.equal(findings(SCHEMA, "run: x\n bad_key: 1\n").length, 0, "a broken layout is not ours to tell");
});

test("every example of Argosy is a task without findings", () => {
  const files = fs.readdirSync(path.join(REPO, "examples"), { recursive: true }).filter((name) => name.endsWith(".yaml"));
  let tasks = 0;
  for (const name of files) {
    const text = fs.readFileSync(path.join(REPO, "examples", name), "utf8");
    if (!isTask(text)) continue;
    tasks += 1;
    assert.deepEqual(findings(SCHEMA, text), [], name);
  }
  assert.ok(tasks >= 5, `${tasks} of ${files.length}`);
});

test("files of other tools are no tasks", () => {
  assert.ok(isTask("resources: {cpus: 2}\nrun: x\n"));
  assert.ok(isService("service:\n  port: 1\nrun: x\n") && !isService("run: |\n  service: no\n"));
  assert.ok(!isTask("apiVersion: v1\nkind: Pod\nrun: x\n"));
  assert.ok(!isTask("services:\n  web: {image: x}\n"));
  assert.ok(!isTask("on: push\njobs:\n  a: {run: x}\n"));
});

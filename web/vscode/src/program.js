"use strict";
// What `argosy` is called with. Secrets never stand in arguments. Pure.

/** The log of a job, service or session. */
function logOf(node) {
  const view = node.view;
  if (node.kind === "session") return ["session", "logs", "-f", node.name];
  if (node.kind === "service") return ["serve", "logs", node.name];
  if (view.cluster) return ["logs", view.cluster, String(view.number)];
  return ["jobs", "logs", String(view.group ?? view.number)];
}

/** What brings this to its end. */
function endOf(node) {
  const view = node.view;
  if (node.kind === "session") return ["session", "end", "-y", node.name];
  if (node.kind === "service") return ["serve", "down", "-y", node.name];
  if (node.kind === "cluster") return ["down", "-y", node.name];
  if (view.cluster) return ["cancel", "-y", view.cluster, String(view.number)];
  return ["jobs", "cancel", "-y", String(view.group ?? view.number)];
}

/** What is lost by that, for the question that comes before. */
function costOf(node) {
  return {
    session: "Its programs end, and it is gone for good. Rest keeps its files.",
    service: "Its replicas end, and requests to it fail.",
    cluster: "Its jobs end, and what lies on its disks is deleted. Logs are kept.",
    job: "It stops where it is.",
  }[node.kind];
}

function terminalOf(node) {
  return node.kind === "session" ? ["session", "open", node.name, "--as", "terminal"] : ["ssh", node.name];
}

/** The host name under which ssh and editors find it. */
function sshHost(node) {
  if (node.kind === "session") return `${node.name}.argosy`;
  const [project, name] = node.name.includes("/") ? node.name.split("/") : ["", node.name];
  return project ? `${name}.${project}` : name;
}

/** `argosy` shows the plan itself and asks: what is confirmed is what is launched. */
function launchOf(file, { how, cluster = "" }) {
  if (how === "service") return ["serve", "up", file];
  if (how === "job") return ["jobs", "launch", file];
  return cluster ? ["launch", "-c", cluster, file] : ["launch", file];
}

/** The words of a session that is started; `gpus` and `idle` as people write them. */
function startOf({ app, name = "", gpus = "", idle = "" }) {
  const words = ["session", "start", app, "--detach", "--json"];
  if (name) words.push("--name", name);
  if (gpus) words.push("--gpus", gpus);
  if (idle) words.push("--idle", idle);
  return words;
}

/** A command as a shell of people would take it, to be shown. */
function shown(words) {
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replace(/'/g, "'\\''")}'`)).join(" ");
}

/** Where in a file an error is: {file, line, column} from 0; null when it does not say. */
function placeOf(where) {
  const found = /^(.*?):(\d+)(?::(\d+))?$/.exec(where || "");
  return found ? { file: found[1], line: Number(found[2]) - 1, column: Number(found[3] || 1) - 1 } : null;
}

/** The error that `argosy --json` wrote, or its last line. */
function problemOf(text) {
  for (const line of String(text).trim().split("\n").reverse()) {
    try {
      const told = JSON.parse(line);
      if (told && told.what) return told;
    } catch {
      // another line
    }
  }
  const last = String(text).trim().split("\n").filter(Boolean);
  const error = last.find((line) => line.startsWith("error: ")) || last.pop() || "";
  const hint = last.find((line) => line.startsWith("hint: ")) || "";
  return { code: "failed", what: error.replace(/^error: /, ""), hint: hint.replace(/^hint: /, "") };
}

/** Without colours and other orders to a terminal, and without what a line overwrote: a channel shows text. */
function plain(text) {
  return text.replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-~])/g, "").replace(/[^\n]*\r(?!\n)/g, "");
}

module.exports = { costOf, endOf, launchOf, logOf, placeOf, plain, problemOf, shown, sshHost, startOf, terminalOf };

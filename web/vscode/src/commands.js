"use strict";
// What people can do: in the palette, in the tree, in the editor's title.
const vscode = require("vscode");
const path = require("node:path");
const { Failure } = require("./api");
const program = require("./program");
const { isService, isTask } = require("./schema");
const { warnings } = require("./tree");

const REMOTE = ["ms-vscode-remote.remote-ssh", "jeanp413.open-remote-ssh"];
const LINK = /https?:\/\/\S+/;
const told = new Map(); // sessions that were warned of
const opened = new Map(); // session: the child that carries its page
const problems = vscode.languages.createDiagnosticCollection("argosy-launch");

function register(context, server) {
  const add = (name, act) => context.subscriptions.push(
    vscode.commands.registerCommand(`argosy.${name}`, (...given) => guarded(server, () => act(server, ...given))));
  context.subscriptions.push(problems, { dispose: () => opened.forEach((one) => one.abort()) });
  for (const [name, act] of Object.entries(ACTS)) add(name, act);
}

/** Errors are told as the fact and what to do. */
async function guarded(server, act) {
  try {
    return await act();
  } catch (error) {
    server.say(error.message);
    const chosen = await vscode.window.showErrorMessage(error.message, ...(error instanceof Failure ? [] : ["Show Messages"]));
    if (chosen) server.showMessages();
  }
}

function terminal(server, name, words, cwd) {
  const shell = vscode.window.createTerminal({
    name, shellPath: server.program, shellArgs: words, cwd, env: overlay(server), iconPath: new vscode.ThemeIcon("server-environment"),
  });
  shell.show();
  return shell;
}

/** Only what settings add: a terminal has the rest by itself. */
function overlay(server) {
  const all = server.environment;
  const names = ["ARGOSY_HOME", "ARGOSY_SERVER", "ARGOSY_PROJECT"];
  return Object.fromEntries(names.filter((name) => all[name]).map((name) => [name, all[name]]));
}

// ---- task files

async function openTask(uri) {
  const document = uri?.fsPath ? await vscode.workspace.openTextDocument(uri) : vscode.window.activeTextEditor?.document;
  if (!document || !isTask(document.getText())) {
    throw new Failure("usage", "the open file is no task", "a task is a YAML file with `run:` or `resources:`");
  }
  if (document.isUntitled) throw new Failure("usage", "the file has no name yet", "save it first");
  if (document.isDirty) await document.save();
  problems.delete(document.uri);
  return document;
}

async function launch(server, uri, how) {
  const document = await openTask(uri);
  const file = document.uri.fsPath;
  const asked = isService(document.getText()) && how !== "job" ? "service" : how;
  await check(server, document);
  let cluster = "";
  if (asked === "cluster") {
    cluster = await chooseCluster(server);
    if (cluster === undefined) return;
  }
  if (asked === "service" && !(await confirmPlan(server, file))) return;
  terminal(server, `argosy ${path.basename(file)}`, program.launchOf(file, { how: asked, cluster }), path.dirname(file));
}

/** A file that cannot be launched shows where it is wrong. */
async function check(server, document) {
  try {
    return await planOf(server, document.uri.fsPath);
  } catch (error) {
    const place = program.placeOf(error.where);
    if (place && path.resolve(place.file) === document.uri.fsPath && place.line < document.lineCount) {
      const start = new vscode.Position(place.line, place.column);
      const range = document.getWordRangeAtPosition(start) || new vscode.Range(start, start);
      const found = new vscode.Diagnostic(range, error.message, vscode.DiagnosticSeverity.Error);
      found.source = "argosy";
      problems.set(document.uri, [found]);
    }
    throw error;
  }
}

function planOf(server, file) {
  const options = { location: vscode.ProgressLocation.Window, title: "Argosy: looking where it would run" };
  return vscode.window.withProgress(options, () => server.run(["plan", file, "--json"], { cwd: path.dirname(file) }));
}

async function confirmPlan(server, file) {
  const text = await server.run(["plan", file], { cwd: path.dirname(file) });
  const detail = text.split("\n\n").slice(0, 2).join("\n\n").slice(0, 2000);
  return (await vscode.window.showInformationMessage("Serve this file?", { modal: true, detail }, "Serve")) === "Serve";
}

async function chooseCluster(server) {
  const known = (server.found.clusters || []).filter((one) => one.status === "running");
  if (!known.length) return "";
  const fresh = { label: "$(add) A new cluster", name: "" };
  const items = known.map((one) => ({ label: `$(server) ${one.name}`, description: `${one.infra} ${one.resources}`, name: one.name }));
  return (await vscode.window.showQuickPick([fresh, ...items], { title: "Launch on", placeHolder: "A cluster" }))?.name;
}

// ---- what is in the tree

/** The node of the tree, or one that is chosen now. */
async function chosen(server, node, kinds, title, test = () => true) {
  if (node?.view) return node;
  const { groups } = require("./tree");
  const all = groups(server.found, Date.now()).flatMap((one) => one.children).filter((one) => kinds.includes(one.kind) && test(one));
  if (!all.length) throw new Failure("not-found", "there is nothing for this now", "start a session or launch a task first");
  const items = all.map((one) => ({ label: `$(${one.icon}) ${one.label}`, description: one.description, node: one }));
  return (await vscode.window.showQuickPick(items, { title, matchOnDescription: true }))?.node;
}

async function showLog(server, given) {
  const node = await chosen(server, given, ["job", "service", "session"], "Show the log of");
  if (!node) return;
  const channel = vscode.window.createOutputChannel(`Argosy: ${node.name || node.label}`);
  channel.show(true);
  const words = program.logOf(node);
  channel.appendLine(`$ argosy ${program.shown(words)}`);
  await server.run(words, { hear: (text) => channel.append(program.plain(text)) });
}

async function openSession(server, given) {
  const isOpen = (one) => one.context.startsWith("session.running.web");
  const node = await chosen(server, given, ["session"], "Open", isOpen);
  if (!node) return;
  opened.get(node.id)?.abort();
  const stop = new AbortController();
  opened.set(node.id, stop);
  let isShown = false;
  const hear = (text) => {
    const link = LINK.exec(text);
    if (!link || isShown) return;
    isShown = true;
    vscode.env.openExternal(link[0]); // the text itself: an Uri would write `#code=` in another way
  };
  const running = server.run(["session", "open", "--no-browser", node.name], { hear, signal: stop.signal });
  running.catch((error) => vscode.window.showErrorMessage(error.message));
}

async function openRemote(server, given) {
  const running = (one) => one.context.includes(".running");
  const node = await chosen(server, given, ["session", "cluster"], "Open a window on", running);
  if (!node) return;
  if (!REMOTE.some((one) => vscode.extensions.getExtension(one))) {
    throw new Failure("missing", "no extension for windows over SSH is installed", "install `Remote - SSH`, then try again");
  }
  await server.run(["ssh-config", "--yes"]);
  const folder = node.kind === "session" ? "/home/work" : "";
  const uri = vscode.Uri.parse(`vscode-remote://ssh-remote+${program.sshHost(node)}${folder}`);
  const [command, options] = folder ? ["vscode.openFolder", { forceNewWindow: true }] : ["vscode.newWindow", { remoteAuthority: uri.authority }];
  await (folder ? vscode.commands.executeCommand(command, uri, options) : vscode.commands.executeCommand(command, options));
}

async function startSession(server) {
  const { apps } = await server.ask("GET", "/apps");
  const items = apps.map((one) => ({ label: one.title || one.name, description: one.name, detail: one.about, app: one.name }));
  const app = (await vscode.window.showQuickPick(items, { title: "Start a session (1/3)", placeHolder: "What runs in it", matchOnDetail: true }))?.app;
  if (!app) return;
  const gpus = await vscode.window.showInputBox({ title: "Start a session (2/3)", prompt: "Accelerators, such as A100:1 or A100:0.5. Empty: none.",
    validateInput: (text) => (/^\s*$|^[\w.-]+(:\d+(\.\d+)?)?$/.test(text.trim()) ? "" : "Write MODEL:COUNT, such as A100:1.") });
  if (gpus === undefined) return;
  const idle = (await vscode.window.showQuickPick(["30m", "2h", "8h", "never"], { title: "Start a session (3/3)", placeHolder: "Rest when unused for" }));
  if (!idle) return;
  const options = { location: vscode.ProgressLocation.Notification, title: "Argosy: starting a session", cancellable: false };
  const view = await vscode.window.withProgress(options, async (progress) => {
    let now = JSON.parse(await server.run(program.startOf({ app, gpus: gpus.trim(), idle })));
    while (["queued", "starting"].includes(now.status)) {
      progress.report({ message: [now.status, now.detail].filter(Boolean).join(": ") });
      now = await server.ask("GET", `/sessions/${encodeURIComponent(now.id)}?wait_s=20`, { waitMs: 20_000 });
    }
    return now;
  });
  if (view.status !== "running") throw new Failure("failed", `session \`${view.name}\` is ${view.status}`, view.detail);
  const node = { id: view.id, kind: "session", name: view.name, view, context: `session.running.${view.is_proxied ? "web" : "plain"}` };
  const first = view.is_proxied ? "Open in the Browser" : "Open a Terminal";
  const answer = await vscode.window.showInformationMessage(`Session ${view.name} is up.`, first, "Open in a Window Over SSH");
  if (answer === first) return view.is_proxied ? openSession(server, node) : ACTS.openTerminal(server, node);
  if (answer) return openRemote(server, node);
}

async function end(server, given) {
  const node = await chosen(server, given, ["session", "service", "cluster", "job"], "End", (one) => one.context !== "job.done.log");
  if (!node) return;
  const question = `End ${node.kind} ${node.label}?`;
  const answer = await vscode.window.showWarningMessage(question, { modal: true, detail: program.costOf(node) }, "End");
  if (answer === "End") await server.run(program.endOf(node));
}

function change(method) {
  return async (server, given) => {
    const wanted = { stop: "running", start: "resting", snooze: "running" }[method];
    const node = await chosen(server, given, ["session"], "Which session", (one) => one.context.startsWith(`session.${wanted}`));
    if (node) await server.ask("POST", `/sessions/${encodeURIComponent(node.id)}/${method}`, { body: method === "snooze" ? {} : undefined });
  };
}

/** Once for each warning: it rests soon, and there is more time to be had. */
async function tellWarnings(server) {
  for (const one of warnings(server.found, told)) {
    told.set(one.id, one.use.warned_ms);
    const text = `Session ${one.name} rests soon: ${one.use.why || "nobody uses it"}.`;
    vscode.window.showWarningMessage(text, "Give It More Time").then((answer) => {
      if (answer) guarded(server, () => server.ask("POST", `/sessions/${encodeURIComponent(one.id)}/snooze`, { body: {} }));
    });
  }
}

const ACTS = {
  launch: (server, uri) => launch(server, uri, "cluster"),
  launchJob: (server, uri) => launch(server, uri, "job"),
  serve: (server, uri) => launch(server, uri, "service"),
  async plan(server, uri) {
    const document = await openTask(uri);
    await check(server, document);
    terminal(server, "argosy plan", ["plan", document.uri.fsPath], path.dirname(document.uri.fsPath));
  },
  refresh: (server) => server.refresh(),
  startSession, openSession, openRemote, showLog, end,
  restSession: change("stop"),
  resumeSession: change("start"),
  snoozeSession: change("snooze"),
  async openTerminal(server, given) {
    const node = await chosen(server, given, ["session", "cluster"], "Open a terminal on", (one) => one.context.includes(".running"));
    if (node) terminal(server, node.name, program.terminalOf(node));
  },
  web(server) {
    const stop = new AbortController();
    opened.get("web")?.abort();
    opened.set("web", stop);
    const hear = (text) => LINK.test(text) && vscode.env.openExternal(LINK.exec(text)[0]);
    server.run(["web", "--no-browser"], { hear, signal: stop.signal }).catch((error) => vscode.window.showErrorMessage(error.message));
  },
  async startServer(server) {
    const options = { location: vscode.ProgressLocation.Window, title: "Argosy: starting the server" };
    await vscode.window.withProgress(options, () => server.run(["status", "--json"]));
    server.wake();
  },
  signIn: (server) => terminal(server, "argosy login", ["login"]),
  settings: () => vscode.commands.executeCommand("workbench.action.openSettings", "@ext:argosy.argosy"),
  showWhy: (server) => server.showMessages(),
  focus: () => vscode.commands.executeCommand("argosy.tree.focus"),
};

module.exports = { register, tellWarnings };

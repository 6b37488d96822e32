"use strict";
// The server as the editor sees it: what is there, kept up to date by its events.
const vscode = require("vscode");
const { spawn } = require("node:child_process");
const { Failure, ask } = require("./api");
const { environment, locate } = require("./location");
const { follow, gathered } = require("./news");
const { problemOf, shown } = require("./program");
const { summary } = require("./tree");

const LISTS = { jobs: "/jobs?limit=50", services: "/services", sessions: "/sessions" };
const MINUTE_MS = 60_000;

class Server {
  constructor(channel) {
    this._channel = channel;
    this._changed = new vscode.EventEmitter();
    this.onChange = this._changed.event;
    this.state = "stopped"; // stopped | live | signed-out | failed | missing
    this.found = {};
    this.address = "";
    this.jobsOf = new Map(); // by cluster: what was unfolded
    this._load = gathered(() => this._loadAll());
    this._stop = null;
    this._sleeper = null;
    this._clock = setInterval(() => this.state === "live" && this._changed.fire(), MINUTE_MS); // countdowns
  }

  dispose() {
    clearInterval(this._clock);
    this._load.stop();
    this._stop?.abort();
    this._changed.dispose();
  }

  settings(name) {
    return vscode.workspace.getConfiguration("argosy").get(name, "");
  }

  get environment() {
    const settings = { home: this.settings("home"), server: this.settings("server"), project: this.settings("project") };
    return environment(process.env, settings);
  }

  get program() {
    return this.settings("program") || "argosy";
  }

  /** One request. Raises Failure. */
  ask(method, target, options) {
    return ask(locate(this.environment), method, target, options);
  }

  /** Begin anew: another server, other settings. */
  restart() {
    this._stop?.abort();
    this.found = {};
    this.jobsOf.clear();
    let place;
    try {
      place = locate(this.environment);
    } catch (error) {
      this._become("failed", error);
      return;
    }
    this.address = place.address;
    const stop = (this._stop = new AbortController());
    follow({
      ask: (target, options) => ask(locate(this.environment), "GET", target, options),
      heard: () => this._load(),
      lost: (error) => this._lost(error, place),
      sleep: (ms, signal) => this._sleep(ms, signal),
      signal: stop.signal,
    });
  }

  /** Somebody looks: what waits to be tried again is tried now. */
  wake() {
    this._sleeper?.();
  }

  refresh() {
    if (this.state === "live") this._load();
    else this.wake();
  }

  summary() {
    return summary(this.found);
  }

  async jobs(cluster) {
    const name = encodeURIComponent(cluster);
    const { jobs } = await this.ask("GET", `/jobs?cluster=${name}&limit=20`);
    this.jobsOf.set(cluster, jobs);
    return jobs;
  }

  say(text) {
    this._channel.appendLine(text);
  }

  showMessages() {
    this._channel.show(true);
  }

  /** Run `argosy` to its end: its output. Raises Failure with what it said. `hear` gets pieces of standard output. */
  run(words, { cwd, hear, signal } = {}) {
    this.say(`$ argosy ${shown(words)}`);
    return new Promise((resolve, reject) => {
      const child = spawn(this.program, words, { cwd, env: this.environment, stdio: ["ignore", "pipe", "pipe"], signal });
      let out = "";
      let err = "";
      child.stdout.setEncoding("utf8").on("data", (text) => {
        if (hear) hear(text);
        else out += text;
      });
      child.stderr.setEncoding("utf8").on("data", (text) => (err = (err + text).slice(-20_000)));
      child.on("error", (error) => {
        if (error.name === "AbortError") return resolve(out);
        if (error.code === "ENOENT") this._become("missing", error);
        reject(error.code === "ENOENT"
          ? new Failure("missing", `the command \`${this.program}\` is not there`, "`argosy.program` says where it is")
          : new Failure("failed", `\`${this.program}\` cannot be run: ${error.message}`));
      });
      child.on("close", (status, killed) => {
        if (status === 0 || killed) return resolve(out);
        const told = problemOf(err);
        const failure = new Failure(told.code, told.what || `argosy ended with status ${status}`, told.hint);
        failure.where = told.where;
        this.say(failure.message);
        reject(failure);
      });
    });
  }

  async _loadAll() {
    const found = { refused: {} };
    const status = await this._list("clusters", "/status", found);
    Object.assign(found, { clusters: status?.clusters || [] });
    await Promise.all(Object.entries(LISTS).map(async ([kind, target]) => {
      found[kind] = (await this._list(kind, target, found))?.[kind] || [];
    }));
    if (this.state === "signed-out") return;
    for (const name of this.jobsOf.keys()) {
      if (found.clusters.some((one) => one.name === name)) await this.jobs(name).catch(() => undefined);
      else this.jobsOf.delete(name);
    }
    this.found = found;
    this._become("live");
  }

  async _list(kind, target, found) {
    try {
      return await this.ask("GET", target);
    } catch (error) {
      if (error.status !== 403) throw error;
      found.refused[kind] = "you may not see these";
      return null;
    }
  }

  _lost(error, place) {
    this.found = {};
    if (error.status === 401) this._become("signed-out", error);
    else if (place.isLocal && error.code === "server-unreachable" && /does not run/.test(error.what)) this._become("stopped");
    else this._become("failed", error);
  }

  _become(state, error) {
    if (error && error.message !== this._said) this.say((this._said = error.message));
    if (!error) this._said = "";
    this.state = state;
    vscode.commands.executeCommand("setContext", "argosy.state", state);
    this._changed.fire();
  }

  _sleep(ms, signal) {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this._sleeper = null;
        resolve();
      };
      const timer = setTimeout(done, ms);
      this._sleeper = done;
      signal.addEventListener("abort", done, { once: true });
    });
  }
}

module.exports = { Server };

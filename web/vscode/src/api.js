"use strict";
// Requests to the server. Every failure is a Failure: the fact, and what to do about it.
const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");

const ANSWER_MS = 20_000;
const ANSWER_MOST = 16 << 20; // bytes

class Failure extends Error {
  /** `code`: of the server's errors, or "server-unreachable". */
  constructor(code, what, hint = "", status = 0) {
    super(sentence(what, hint));
    Object.assign(this, { code, what, hint, status });
  }
}

/** One line for people: the fact, then what to do. */
function sentence(what, hint) {
  const fact = String(what || "something went wrong").replace(/\.$/, "");
  const said = fact.charAt(0).toUpperCase() + fact.slice(1) + ".";
  if (!hint) return said;
  const help = String(hint).replace(/\.$/, "");
  return `${said} ${help.charAt(0).toUpperCase()}${help.slice(1)}${/[?!]$/.test(help) ? "" : "."}`;
}

/** The answer to one request, from JSON. `place`: as `locate` gives it. `signal` ends it. */
function ask(place, method, target, { body, waitMs = 0, signal } = {}) {
  const headers = { host: place.socket ? "argosy" : `${place.host}:${place.port}`, "x-argosy-api": "1" };
  if (place.token) headers.authorization = `Bearer ${place.token}`;
  if (place.project) headers["x-argosy-project"] = place.project;
  const data = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
  if (data) Object.assign(headers, { "content-type": "application/json", "content-length": data.length });
  const way = place.socket ? { socketPath: place.socket } : { host: place.host, port: place.port };
  if (place.tls && process.env.SSL_CERT_FILE) way.ca = fs.readFileSync(process.env.SSL_CERT_FILE); // as the command line
  const options = { ...way, method, path: `${place.prefix}/v1${target}`, headers, signal };
  return new Promise((resolve, reject) => {
    const request = (place.tls ? https : http).request(options, (answer) => {
      const parts = [];
      let size = 0;
      answer.on("data", (part) => {
        size += part.length;
        if (size > ANSWER_MOST) request.destroy(new Error("the answer is too large"));
        parts.push(part);
      });
      answer.on("end", () => {
        const told = parse(Buffer.concat(parts).toString("utf8"));
        if (answer.statusCode < 300 && told) return resolve(told);
        reject(new Failure(told?.code || "internal", told?.what || `the server answered ${answer.statusCode}`,
          told?.hint, answer.statusCode));
      });
      answer.on("error", fail);
    });
    request.setTimeout(ANSWER_MS + waitMs, () => request.destroy(new Error("it does not answer")));
    request.on("error", fail);
    request.end(data);

    function fail(error) {
      if (error.name === "AbortError") return reject(error);
      reject(new Failure("server-unreachable", `the server at ${place.address} cannot be reached: ${reason(error)}`,
        place.isLocal ? "`argosy status` starts it" : "check `argosy.server` and the network"));
    }
  });
}

function reason(error) {
  return { ENOENT: "it does not run", ECONNREFUSED: "it does not run", ENOTFOUND: "there is no such host" }[error.code]
    || error.message;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

module.exports = { Failure, ask, sentence };

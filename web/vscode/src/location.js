"use strict";
// Where the server is, as the command line finds it, and the token that `argosy login` keeps.
const crypto = require("node:crypto");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const SOCKET_MOST = 100; // bytes of a socket's path, as everywhere in Argosy

/** The environment of `argosy`: the editor's own, with what the settings say. */
function environment(env, settings) {
  const found = { ...env };
  if (settings.home) found.ARGOSY_HOME = settings.home;
  if (settings.server) found.ARGOSY_SERVER = settings.server;
  if (settings.project) found.ARGOSY_PROJECT = settings.project;
  return found;
}

function stateFolder(env) {
  const home = env.HOME || os.homedir();
  const named = env.ARGOSY_HOME || "";
  if (!named) return path.join(home, ".argosy");
  if (named === "~" || named.startsWith("~/")) return path.join(home, named.slice(2));
  return path.resolve(named);
}

function socketPath(folder, uid) {
  const plain = path.join(folder, "run", "server.sock");
  if (Buffer.byteLength(plain) < SOCKET_MOST) return plain;
  const name = crypto.createHash("sha256").update(folder).digest("hex").slice(0, 24);
  return `/tmp/argosy-${uid}/${name}.sock`;
}

/** {socket} or {host, port, tls, prefix}, with {address, token, project, isLocal}. Throws an Error for people. */
function locate(env, uid = process.getuid ? process.getuid() : 0) {
  const home = stateFolder(env);
  const named = (env.ARGOSY_SERVER || "").trim();
  const project = (env.ARGOSY_PROJECT || "").trim();
  const token = (env.ARGOSY_TOKEN || "").trim();
  if (!named) return at({ socket: socketPath(home, uid), isLocal: true });
  if (named.startsWith("unix:")) return at({ socket: "/" + named.slice(5).replace(/^\/+/, "") });
  if (named.startsWith("/")) return at({ socket: named });
  let url;
  try {
    url = new URL(named.includes("://") ? named : `http://${named}`);
  } catch {
    url = null;
  }
  if (!url || !["http:", "https:"].includes(url.protocol) || !url.hostname || url.username) {
    throw new Error(
      "the server is not an address. Write https://HOST, http://HOST:PORT or unix:///PATH into `argosy.server`",
    );
  }
  const tls = url.protocol === "https:";
  const port = Number(url.port) || (tls ? 443 : 80);
  const prefix = url.pathname.replace(/\/+$/, "");
  const address = `http${tls ? "s" : ""}://${url.hostname}:${port}${prefix}`;
  return at({ host: url.hostname.replace(/^\[|\]$/g, ""), port, tls, prefix, address }, keptToken(home, address));

  function at(found, kept = "") {
    return { isLocal: false, prefix: "", ...found, address: found.address || found.socket, home, project,
      token: token || kept };
  }
}

/** What `argosy login` got for this server; "" when it got nothing. */
function keptToken(home, address) {
  try {
    const kept = JSON.parse(fs.readFileSync(path.join(home, "sign-ins.json"), "utf8"));
    return typeof kept[address] === "string" ? kept[address] : "";
  } catch {
    return "";
  }
}

module.exports = { environment, locate, socketPath, stateFolder };

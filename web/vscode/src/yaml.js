"use strict";
// Where a place in a YAML file stands: enough for completion and for finding keys, not a parser. Pure.

const KEY = /^(\s*)((?:- +)*)("[^"]*"|'[^']*'|[^\s#"'{}[\],&*!|>%@`-][^#:]*?|[\w.${}/~-]+):(?=\s|$)(.*)$/;
const BLOCK = /^[|>][+-]?\d*\s*(?:#.*)?$/;

/** Every key of the file: {key, line, column, indent, path, value}; path: keys and "*" for items above it. */
function keysOf(text) {
  const found = [];
  const open = []; // {indent, key}
  let block = -1; // indent of the key whose block text goes on
  text.split("\n").forEach((raw, line) => {
    const bare = raw.replace(/\r$/, "");
    if (/^(---|\.\.\.)(\s|$)/.test(bare)) {
      open.length = 0;
      block = -1;
      return;
    }
    const indent = bare.search(/\S/);
    if (indent < 0) return;
    if (block >= 0 && indent > block) return;
    block = -1;
    if (bare[indent] === "#") return;
    const match = KEY.exec(bare);
    const dashes = (match ? match[2] : /^(?:- *)*/.exec(bare.slice(indent))[0]).replace(/\s+$/, "") ? dashesOf(bare, indent) : [];
    for (const at of dashes) {
      close(open, at, true);
      open.push({ indent: at, key: "*" });
    }
    if (!match) return;
    const column = match[1].length + match[2].length;
    close(open, column, false);
    const key = match[3].trim().replace(/^["']|["']$/g, "");
    found.push({ key, line, column, indent: column, path: open.map((one) => one.key), value: match[4].trim() });
    open.push({ indent: column, key });
    if (BLOCK.test(match[4].trim())) block = column;
  });
  return found;
}

function dashesOf(bare, indent) {
  const found = [];
  for (let at = indent; bare[at] === "-" && (bare[at + 1] === " " || at + 1 === bare.length); ) {
    found.push(at);
    at += 1 + (bare.slice(at + 1).search(/\S/) < 0 ? bare.length : bare.slice(at + 1).search(/\S/));
  }
  return found;
}

function close(open, indent, isItem) {
  while (open.length) {
    const last = open[open.length - 1];
    // a list may stand at the indent of its key
    const stays = last.indent < indent || (isItem && last.indent === indent && last.key !== "*");
    if (stays) return;
    open.pop();
  }
}

/** What is typed at a place: {path, isValue, key, prefix, there}; null inside a block of text or a comment. */
function placeAt(text, line, column) {
  const lines = text.split("\n");
  const before = (lines[line] || "").slice(0, column);
  if (/(^|\s)#/.test(before)) return null;
  const probe = "argosy\u0001";
  const value = /^(\s*(?:- +)*)([^\s:#][^:#]*):\s+(.*)$/.exec(before);
  const start = value ? value[1].length : before.search(/[^\s-]|$/);
  const kept = lines.slice();
  kept[line] = value ? before.replace(/:\s+.*$/, `: ${probe}`) : `${before.slice(0, start)}${probe}:`;
  const keys = keysOf(kept.join("\n"));
  const mine = keys.find((one) => one.line === line && (value ? one.value === probe : one.key === probe));
  if (!mine) return null;
  const firstOf = (at) => documentOf(lines, at);
  const same = (one) => one !== mine && one.path.join("\0") === mine.path.join("\0") && firstOf(one.line) === firstOf(line);
  return {
    path: mine.path, key: mine.key === probe ? "" : mine.key, isValue: Boolean(value), prefix: value ? value[3] : before.slice(start),
    there: keys.filter(same).map((one) => one.key),
  };
}

function documentOf(lines, line) {
  let first = line;
  while (first > 0 && !/^---(\s|$)/.test(lines[first])) first -= 1;
  return first;
}

module.exports = { keysOf, placeAt };

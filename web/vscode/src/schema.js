"use strict";
// What the schema of task files says about a place: keys, values, texts, and what is wrong. Pure.
const { keysOf, placeAt } = require("./yaml");

const SIGNS = new Set(["run", "resources", "service", "num_nodes", "setup", "file_mounts", "function", "matrix"]);
const ELSEWHERE = new Set(["apiVersion", "kind", "version", "jobs", "on", "image", "services", "hosts", "tasks"]);

/** Every way in which the schema may be read: itself, and what its `anyOf` lists. */
function ways(schema) {
  if (!schema || typeof schema !== "object") return [];
  const more = [...(schema.anyOf || []), ...(schema.oneOf || [])];
  return [schema, ...more.flatMap(ways)];
}

/** The schemas of the value at a path of keys and "*". */
function schemasAt(schema, path) {
  let now = ways(schema);
  for (const step of path) {
    now = now.flatMap((one) => {
      if (step === "*") return ways(one.items);
      if (one.properties && Object.hasOwn(one.properties, step)) return ways(one.properties[step]);
      return one.additionalProperties && typeof one.additionalProperties === "object" ? ways(one.additionalProperties) : [];
    });
  }
  return now;
}

/** Whether this YAML is a task of Argosy: it has keys of one, and none of other tools. */
function isTask(text) {
  const top = keysOf(text.slice(0, 100_000)).filter((one) => one.path.length === 0).map((one) => one.key);
  return top.some((key) => SIGNS.has(key)) && !top.some((key) => ELSEWHERE.has(key));
}

function isService(text) {
  return isTask(text) && keysOf(text).some((one) => one.path.length === 0 && ["service", "function"].includes(one.key));
}

/** [{label, about, insert, isKey}] for a place of the text. */
function completions(schema, text, line, column) {
  const place = placeAt(text, line, column);
  if (!place) return [];
  const here = schemasAt(schema, place.isValue ? [...place.path, place.key] : place.path);
  const found = new Map();
  if (place.isValue || here.every((one) => !one.properties)) {
    for (const one of here) {
      for (const value of one.enum || (one.type === "boolean" ? [true, false] : [])) {
        found.set(String(value), { label: String(value), about: one.description || "", insert: String(value), isKey: false });
      }
    }
    return [...found.values()];
  }
  for (const one of here) {
    for (const [key, about] of Object.entries(one.properties || {})) {
      if (place.there.includes(key) || found.has(key) || key.startsWith("_")) continue;
      if (/accepted, not executed/.test(about.description || "")) continue;
      found.set(key, { label: key, about: described(about), insert: `${key}${tailOf(about)}`, isKey: true });
    }
  }
  return [...found.values()];
}

function described(schema) {
  return schema.description || ways(schema).map((one) => one.description).find(Boolean) || "";
}

/** What stands behind a key that is written: a block where it holds more keys. */
function tailOf(schema) {
  const kinds = ways(schema);
  return kinds.length && kinds.every((one) => one.type === "object" || (one.anyOf && !one.type)) ? ":\n  " : ": ";
}

/** The text about a key at a place; "" when there is none. */
function aboutAt(schema, text, line, column) {
  const key = keysOf(text).find((one) => one.line === line && column >= one.column && column <= one.column + one.key.length);
  return key ? schemasAt(schema, [...key.path, key.key]).map((one) => one.description).find(Boolean) || "" : "";
}

/** [{line, column, length, text}]: keys that no task has, and values that are not among those allowed. */
function findings(schema, text) {
  const found = [];
  for (const one of keysOf(text)) {
    const above = schemasAt(schema, one.path);
    const known = above.flatMap((each) => Object.keys(each.properties || {}));
    const isOpen = above.length === 0 || above.some((each) => isAnything(each));
    const at = { line: one.line, column: one.column, length: one.key.length };
    if (!isOpen && known.length && !known.includes(one.key)) {
      const near = nearest(one.key, known);
      found.push({ ...at, text: `There is no field \`${one.key}\` here.${near ? ` Did you mean \`${near}\`?` : ""}` });
      continue;
    }
    const wrong = wrongValue(schemasAt(schema, [...one.path, one.key]), one.value);
    if (wrong) found.push({ ...at, text: `\`${one.key}\` ${wrong}` });
  }
  return found;
}

function isAnything(schema) {
  const isObject = schema.type === undefined || schema.type === "object";
  if (schema.anyOf || !isObject) return false;
  return schema.additionalProperties !== false && (Boolean(schema.additionalProperties) || !schema.properties);
}

/** Only what is certain: a plain word where a list of words, a number or a truth value is wanted. */
function wrongValue(schemas, value) {
  const plain = value.replace(/\s+#.*$/, "");
  if (!plain || !schemas.length || /^[[{&*!|>"'$~]/.test(plain) || plain === "null") return "";
  const simple = schemas.filter((one) => one.type || one.enum);
  if (simple.some((one) => one.enum ? one.enum.map(String).includes(plain) : takes(one, plain))) return "";
  if (simple.length !== schemas.filter((one) => !one.anyOf).length || !simple.length) return "";
  const choices = simple.flatMap((one) => one.enum || []);
  if (choices.length) return `is one of ${choices.map((each) => `\`${each}\``).join(", ")}.`;
  const kinds = [...new Set(simple.flatMap((one) => one.type))].map((kind) => WORDS[kind] || kind);
  return `wants ${kinds.join(" or ")}.`;
}

const WORDS = { integer: "a whole number", number: "a number", boolean: "true or false", object: "more fields below it",
  array: "a list", null: "nothing", string: "text" };

function takes(schema, plain) {
  return [schema.type].flat().some((kind) => {
    if (kind === "string") return !schema.enum || schema.enum.includes(plain);
    if (kind === "integer") return /^[-+]?\d+$/.test(plain);
    if (kind === "number") return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(plain);
    return kind === "boolean" && /^(true|false|yes|no|on|off)$/i.test(plain);
  });
}

function nearest(word, known) {
  const scored = known.map((one) => [distance(word.toLowerCase(), one.toLowerCase()), one]).sort((a, b) => a[0] - b[0]);
  return scored.length && scored[0][0] <= Math.max(1, Math.floor(word.length / 3)) ? scored[0][1] : "";
}

function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length];
}

module.exports = { aboutAt, completions, findings, isService, isTask, schemasAt };

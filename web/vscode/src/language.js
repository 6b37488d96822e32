"use strict";
// Task files: keys that fit, texts about them, and what is wrong. With the YAML extension, that one does it by our schema.
const vscode = require("vscode");
const fs = require("node:fs");
const path = require("node:path");
const { aboutAt, completions, findings, isService, isTask } = require("./schema");

const YAML = "redhat.vscode-yaml";
const SCHEMA = "argosy://schema/task";
const LATER_MS = 300;
const SELECTOR = [{ language: "yaml" }, { pattern: "**/*.{yaml,yml}" }];

function register(context) {
  const file = path.join(context.extensionPath, "schema", "task.schema.json");
  let kept = null;
  const schema = () => (kept ||= JSON.parse(fs.readFileSync(file, "utf8")));
  const problems = vscode.languages.createDiagnosticCollection("argosy");
  const isOurs = () => !vscode.extensions.getExtension(YAML);
  context.subscriptions.push(problems);
  offer(file);

  const complete = {
    provideCompletionItems(document, position) {
      if (!isOurs() || !isTask(document.getText())) return [];
      return completions(schema(), document.getText(), position.line, position.character).map((one, at) => {
        const kind = one.isKey ? vscode.CompletionItemKind.Property : vscode.CompletionItemKind.EnumMember;
        const item = new vscode.CompletionItem(one.label, kind);
        item.documentation = one.about;
        item.insertText = one.insert;
        item.sortText = String(at).padStart(4, "0");
        if (one.isKey && one.insert.endsWith(" ")) item.command = { command: "editor.action.triggerSuggest", title: "" };
        return item;
      });
    },
  };
  const hover = {
    provideHover(document, position) {
      if (!isOurs() || !isTask(document.getText())) return undefined;
      const about = aboutAt(schema(), document.getText(), position.line, position.character);
      return about ? new vscode.Hover(about) : undefined;
    },
  };
  context.subscriptions.push(
    vscode.languages.registerCompletionItemProvider(SELECTOR, complete, " ", "\n"),
    vscode.languages.registerHoverProvider(SELECTOR, hover),
  );

  let timer = null;
  const look = (document) => {
    if (document !== vscode.window.activeTextEditor?.document) return;
    const isYaml = document && /\.ya?ml$/.test(document.fileName);
    const text = isYaml ? document.getText() : "";
    const is = Boolean(isYaml) && isTask(text);
    vscode.commands.executeCommand("setContext", "argosy.isTask", is);
    vscode.commands.executeCommand("setContext", "argosy.isService", is && isService(text));
    if (!isYaml) return;
    problems.set(document.uri, is && isOurs() ? findings(schema(), text).map(marked) : []);
  };
  const soon = (document) => {
    clearTimeout(timer);
    timer = setTimeout(() => look(document), LATER_MS);
  };
  context.subscriptions.push(
    vscode.window.onDidChangeActiveTextEditor((editor) => look(editor?.document)),
    vscode.workspace.onDidChangeTextDocument((event) => soon(event.document)),
    vscode.workspace.onDidCloseTextDocument((document) => problems.delete(document.uri)),
    { dispose: () => clearTimeout(timer) },
  );
  look(vscode.window.activeTextEditor?.document);
}

function marked(found) {
  const range = new vscode.Range(found.line, found.column, found.line, found.column + found.length);
  const one = new vscode.Diagnostic(range, found.text, vscode.DiagnosticSeverity.Warning);
  one.source = "argosy";
  return one;
}

/** The YAML extension, where it is installed, uses our schema for every file that is a task. */
async function offer(file) {
  const yaml = vscode.extensions.getExtension(YAML);
  if (!yaml) return;
  const api = await yaml.activate();
  const which = (resource) => {
    const open = vscode.workspace.textDocuments.find((one) => one.uri.toString() === resource);
    return open && isTask(open.getText()) ? SCHEMA : undefined;
  };
  api?.registerContributor?.("argosy", which, () => fs.readFileSync(file, "utf8"));
}

module.exports = { register };

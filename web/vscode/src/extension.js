"use strict";
// The editor's side: views, commands and texts over the parts that know no editor.
const vscode = require("vscode");
const { Server } = require("./server");
const { Tree } = require("./view");
const commands = require("./commands");
const language = require("./language");

/** @param {import("vscode").ExtensionContext} context */
function activate(context) {
  const channel = vscode.window.createOutputChannel("Argosy");
  const server = new Server(channel);
  const tree = new Tree(server);
  const view = vscode.window.createTreeView("argosy.tree", { treeDataProvider: tree, showCollapseAll: true });
  const bar = vscode.window.createStatusBarItem("argosy.status", vscode.StatusBarAlignment.Left, 5);
  bar.name = "Argosy";
  bar.command = "argosy.focus";
  context.subscriptions.push(channel, server, tree, view, bar);
  server.onChange(() => {
    tree.refresh();
    showBar(bar, server);
    commands.tellWarnings(server);
  });
  context.subscriptions.push(
    view.onDidChangeVisibility((event) => event.visible && server.wake()),
    vscode.window.onDidChangeWindowState((state) => state.focused && server.wake()),
    vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("argosy")) server.restart();
    }),
  );
  commands.register(context, server);
  language.register(context);
  server.restart();
  return { server, tree }; // for tests
}

function showBar(bar, server) {
  const isOn = vscode.workspace.getConfiguration("argosy").get("statusBar", true);
  if (!isOn || server.state !== "live") return bar.hide();
  bar.text = `$(server-environment) ${server.summary() || "Argosy"}`;
  bar.tooltip = `Argosy at ${server.address}`;
  bar.show();
}

module.exports = { activate, deactivate: () => undefined };

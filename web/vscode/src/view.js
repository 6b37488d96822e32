"use strict";
// The tree in the side bar.
const vscode = require("vscode");
const { groups, job } = require("./tree");

class Tree {
  constructor(server) {
    this._server = server;
    this._changed = new vscode.EventEmitter();
    this.onDidChangeTreeData = this._changed.event;
  }

  dispose() {
    this._changed.dispose();
  }

  refresh() {
    this._changed.fire();
  }

  getTreeItem(node) {
    const { None, Collapsed, Expanded } = vscode.TreeItemCollapsibleState;
    const isGroup = node.kind.endsWith("s") && node.children;
    const state = isGroup ? (node.children.length ? Expanded : None) : node.isLazy ? Collapsed : None;
    const item = new vscode.TreeItem(node.label, state);
    item.id = `${node.kind}:${node.id}`;
    item.description = node.description;
    item.tooltip = node.tooltip || undefined; // plain text: nothing in it is read as Markdown
    item.contextValue = node.context;
    item.iconPath = new vscode.ThemeIcon(node.icon, node.color ? new vscode.ThemeColor(node.color) : undefined);
    item.accessibilityInformation = { label: `${node.label}, ${node.description}` };
    return item;
  }

  async getChildren(node) {
    if (this._server.state !== "live") return [];
    if (!node) return groups(this._server.found, Date.now());
    if (node.children) return node.children;
    if (node.kind !== "cluster") return [];
    const known = this._server.jobsOf.get(node.name) || (await this._server.jobs(node.name).catch(() => []));
    return known.map(job);
  }
}

module.exports = { Tree };

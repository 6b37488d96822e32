"use strict";
// What the tree shows, from views of the API. Pure: no editor in here.

const ICONS = {
  running: ["play-circle", "charts.green"], ready: ["pass", "charts.green"], succeeded: ["pass", "charts.green"],
  queued: ["clock"], starting: ["loading~spin"], updating: ["loading~spin"], recovering: ["sync~spin"],
  stopping: ["loading~spin"], ending: ["loading~spin"], resting: ["debug-pause"], stopped: ["debug-pause"],
  failing: ["error", "charts.red"], failed: ["error", "charts.red"], lost: ["error", "charts.red"],
  degraded: ["warning", "charts.yellow"], "no-replica": ["warning", "charts.yellow"], cancelled: ["circle-slash"],
};
const LIVE = new Set(["queued", "starting", "running", "recovering", "stopping"]);

/** {id, label, description, tooltip, icon, color, context, kind, name, children?, isLazy?, view} each. */
function groups(found, nowMs) {
  const made = [
    group("clusters", "Clusters", "server", (found.clusters || []).map(cluster), "No clusters"),
    group("jobs", "Managed jobs", "run-all", (found.jobs || []).map((each) => job(each)), "No managed jobs"),
    group("services", "Services", "broadcast", (found.services || []).map(service), "No services"),
    group("sessions", "Sessions", "vm", (found.sessions || []).map((each) => session(each, nowMs)), "No sessions"),
  ];
  for (const one of made) if (found.refused?.[one.kind]) one.description = found.refused[one.kind];
  return made;
}

function group(kind, label, icon, children, empty) {
  const live = children.length;
  return { id: kind, label, description: live ? String(live) : empty, icon, color: "", context: `group.${kind}`, kind,
    name: "", children, tooltip: "" };
}

function node(kind, view, name, more) {
  const [icon, color] = ICONS[view.status] || ["circle-outline"];
  return { id: view.id, label: name, icon, color: color || "", kind, name, view, children: null, ...more };
}

function cluster(view) {
  const jobs = view.jobs_running ? `${view.jobs_running} running` : "";
  const name = view.project && view.project !== "default" ? `${view.project}/${view.name}` : view.name;
  return node("cluster", view, name, {
    description: words(view.status, view.infra, view.resources !== "default" && view.resources, jobs),
    tooltip: lines(view.detail, `${view.num_nodes} ${view.num_nodes === 1 ? "node" : "nodes"}`,
      view.price_micro_usd && `$${(view.price_micro_usd / 1e6).toFixed(2)} an hour`, view.user && `made by ${view.user}`),
    context: `cluster.${view.status}`,
    isLazy: true,
  });
}

function job(view) {
  const name = view.cluster ? `${view.number} ${view.name}` : `${view.name || "job"} (${view.number})`;
  const late = view.status === "queued" && view.position ? `place ${view.position}` : "";
  return node("job", view, name, {
    description: words(view.status, view.resources !== "default" && view.resources, late,
      view.recoveries && `recovered ${view.recoveries} times`),
    tooltip: lines(view.detail, view.exit_code !== null && view.exit_code !== undefined && `exit status ${view.exit_code}`,
      view.user && `made by ${view.user}`),
    context: `job.${LIVE.has(view.phase || view.status) ? "live" : "done"}.log`,
  });
}

function service(view) {
  const rate = view.requests_milli_per_s ? `${(view.requests_milli_per_s / 1000).toFixed(1)} requests/s` : "";
  return node("service", view, view.name, {
    description: words(view.status, `${view.ready}/${view.wanted} ready`, rate),
    tooltip: lines(view.detail, view.endpoint, view.why),
    context: `service.${view.status}.log`,
  });
}

function session(view, nowMs) {
  const rests = left(view.use, nowMs);
  return node("session", view, view.name, {
    description: words(view.title && view.title !== view.name ? view.title : "", view.status,
      view.resources !== "default" && view.resources, rests),
    tooltip: lines(view.detail, view.use?.why, view.user && `made by ${view.user}`),
    icon: view.use?.warned_ms ? "warning" : (ICONS[view.status] || ["circle-outline"])[0],
    context: `session.${view.status}.${view.is_proxied ? "web" : "plain"}${view.job ? ".log" : ""}`,
  });
}

/** "rests in 12 min"; "" when it does not. */
function left(use, nowMs) {
  if (!use?.rests_at_ms) return "";
  const minutes = Math.max(0, Math.round((use.rests_at_ms - nowMs) / 60_000));
  return `rests in ${minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`}`;
}

/** One line for the status bar; "" when nothing runs. */
function summary(found) {
  const count = (list, test) => (list || []).filter(test).length;
  const said = [
    [count(found.clusters, (one) => one.status === "running"), "cluster", "clusters"],
    [count(found.jobs, (one) => one.status === "running"), "job", "jobs"],
    [count(found.services, (one) => one.ready > 0), "service", "services"],
    [count(found.sessions, (one) => one.status === "running"), "session", "sessions"],
  ];
  return said.filter(([number]) => number).map(([number, one, many]) => `${number} ${number === 1 ? one : many}`).join(", ");
}

/** Sessions of which people should know: those that were warned and not yet told of. */
function warnings(found, told) {
  return (found.sessions || []).filter((one) => one.use?.warned_ms && told.get(one.id) !== one.use.warned_ms);
}

function words(...some) {
  return some.filter(Boolean).join(" · ");
}

function lines(...some) {
  return some.filter(Boolean).join("\n");
}

module.exports = { groups, job, summary, warnings };

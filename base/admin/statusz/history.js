// What happened: operations and events, newest first.

function updateOperations(view) {
  const operations = view.operations.slice(0, 8);
  show(byId("operations"), operations.length > 0);
  keep(byId("operation-list"), operations, (it) => it.id,
    () => make("li", {}, make("p", {class: "line"}, make("b"), makeState(), make("time")),
      make("p", {class: "where"}), make("p", {class: "why"})),
    (node, operation) => updateOperation(node, operation, view.daemon.time));
}

function updateOperation(node, operation, now) {
  const [line, figures, why] = node.children;
  const [summary, state, time] = line.children;
  setText(summary, operation.summary);
  setState(state,
    operation.no_change ? stateOf("DONE", "nothing to change") : stateOf(operation.state));
  setText(time, `${since(operation.ended ?? operation.started, now)} ago`);
  setAttribute(time, "datetime", operation.started);
  setAttribute(time, "title", new Date(operation.started).toString());
  setText(figures, figuresOfResizes(operation.replicas));
  show(figures, figures.textContent !== "");
  setText(why, operation.failure?.message);
  show(why, Boolean(operation.failure));
}

function figuresOfResizes(replicas) {
  const several = replicas.length > 1;
  return replicas.filter((it) => ["RELEASING", "DONE"].includes(it.stage)).map((it) => [
    several ? `replica ${it.replica}:` : "", `prepare ${duration(it.prepare_ms)},`,
    `pause ${duration(it.pause_ms)},`,
    it.tokens_rebuilt > 0
      ? `${count(it.tokens_rebuilt, "token")} computed again`
      : `${count(it.kv_blocks_moved, "KV block")} moved` +
        (it.kv_blocks_moved > 0 ? ` (${bytes(it.kv_bytes_moved)})` : "") +
        `, ${commas(it.kv_blocks_kept)} kept`,
  ].filter(Boolean).join(" ")).join("; ");
}

const EVENT_TONES = {
  WORKER_LOST: "bad", EPOCH_FAILED: "bad", PLAN_REFUSED: "bad", ROLLED_BACK: "warn",
  CLIENT_EXPIRED: "warn", WORKER_LEAVING: "warn", EPOCH_ENDED: "warn",
  SERVING: "ok", RESIZED: "ok", ADOPTED: "ok",
};

function updateEvents(view) {
  show(byId("events"), view.daemon.role !== "worker");
  keep(byId("event-list"), view.events, (it) => it.sequence,
    () => make("li", {}, make("time"), makeState(), make("p"), make("span", {class: "where"})),
    updateEvent);
}

function updateEvent(node, event) {
  const [time, state, message, where] = node.children;
  setText(time, timeOfDay(event.time));
  setAttribute(time, "datetime", event.time);
  setState(state, {tone: EVENT_TONES[event.kind] ?? "idle", word: words(event.kind)});
  setText(message, event.message);
  setText(where, [
    event.epoch === undefined ? "" : `epoch ${event.epoch}`,
    event.rank === undefined ? "" : `rank ${event.rank}`, event.worker_id ?? "", event.phase ?? "",
  ].filter(Boolean).join(" · "));
  show(where, where.textContent !== "");
}

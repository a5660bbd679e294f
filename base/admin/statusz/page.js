// The page of one answer.

function updateHeader(view) {
  const {daemon} = view;
  setText(byId("role"), [daemon.role, daemon.name].filter(Boolean).join(" "));
  setText(byId("place"), [
    daemon.address, view.term ? `term ${view.term}` : "",
    daemon.build ? `build ${daemon.build}` : "",
  ].filter(Boolean).join(" · "));
  show(byId("insecure"), Boolean(daemon.insecure));
  setText(byId("insecure"), daemon.insecure ? `▲ Insecure: ${daemon.insecure}.` : "");
  document.title = `${stateFact(view).value} · Muster ${byId("role").textContent}`;
}

function drawPage(json) {
  const view = viewOf(json);
  // A worker has no history that would fill the other column.
  if (view.daemon.role === "worker" && byId("memory").parentNode === byId("model").parentNode) {
    byId("events").after(byId("model"));
  }
  updateHeader(view);
  updateSummary(view);
  keep(byId("replicas"), view.replicas, (it) => it.id, makeReplica,
    (node, replica) => updateReplica(node, replica, view));
  show(byId("idle"), view.idle.length > 0);
  keep(byId("idle-list"), view.idle, (it) => it.worker_id, makeIdle, updateIdle);
  updateMemory(view.ledgers);
  updateGraphs(view);
  updateModel(view.model);
  updateOperations(view);
  updateEvents(view);
}

// What a daemon says, as the page draws it: replicas of epochs of ranks, whoever says it.

const TONES = {
  SERVING: "ok", DONE: "ok", ENLISTED: "idle", WAITING: "idle", DRAINING: "warn", DRAINED: "warn",
  ROLLED_BACK: "warn", FAILED: "bad", LOST: "bad",
};

const stateOf = (name, word = words(name)) => ({name, word, tone: TONES[name] ?? "busy"});

const deviceName = (device) => `${device.kind}:${device.ordinal}`;

function progressOf(progress) {
  if (!progress?.phase) return null;
  const known = progress.total > 0;
  const value = (amount) => progress.unit === "bytes" ? bytes(amount) : commas(amount);
  const unit = progress.unit === "bytes" ? "" : ` ${progress.unit}`;
  const text = known ? `${value(progress.done)} of ${value(progress.total)}${unit}` : "";
  return {phase: progress.phase, fraction: share(progress.done, progress.total), known, text};
}

// A rank of `topology` with what is the same in every epoch.
function placeOf(topology, rank) {
  const group = (kind) =>
    topology.groups.find((it) => it.kind === kind && it.ranks.includes(rank.rank))?.ranks ?? [];
  return {
    key: `${topology.epoch}/${rank.rank}`, rank: rank.rank, leader: rank.rank === 0,
    pp: rank.pp_rank, cp: rank.cp_rank, tp: rank.tp_rank, cpSize: topology.config.cp,
    worker: rank.worker_id, address: rank.address, host: hostOf(rank.address),
    tpGroup: group("TP"), cpGroup: group("CP"), stageGroup: group("STAGE"),
  };
}

// What a worker or its own epoch reports.
const figuresOf = (report) => ({
  step: report.step, kvUsed: report.kv_blocks_used, kvTotal: report.kv_blocks_total,
  heartbeat: report.heartbeat_age_ms,
});

// Whether a failure says that this rank is to blame.
const blames = (failure, topology, rank) =>
  failure?.detail.epoch === topology.epoch &&
  (failure.detail.ranks.includes(rank.rank) || failure.detail.workers.includes(rank.worker_id));

// A rank of the epoch that serves, is formed, or has failed.
function currentRank(replica, rank, workers) {
  const topology = replica.topology;
  const worker = workers.get(rank.worker_id);
  const holds = worker?.replica === replica.replica && worker?.rank === rank.rank;
  const ended = replica.state === "FAILED" || replica.state === "WAITING";
  let state = stateOf(worker?.state ?? "LOST");
  if (!ended && !holds) state = stateOf("LOST");
  if (ended && worker) state = stateOf("ENLISTED", "given back");
  if (blames(replica.failure, topology, rank)) {
    state = stateOf(worker ? "FAILED" : "LOST");
  }
  return {
    ...placeOf(topology, rank), state, device: worker?.device,
    ...(worker && holds ? figuresOf(worker) : {}),
    progress: replica.state === "FORMING" ? progressOf(worker?.progress) : null,
  };
}

// A rank of the epoch that is prepared beside it.
function nextRank(replica, rank, workers, resize) {
  const progress = resize?.ranks.find((it) => it.rank === rank.rank)?.progress;
  const stays = replica.topology.ranks.some(
    (it) => it.rank === rank.rank && it.worker_id === rank.worker_id);
  const worker = workers.get(rank.worker_id);
  return {
    ...placeOf(replica.next, rank), device: worker?.device, progress: progressOf(progress),
    state: worker ? stateOf("PREPARING", stays ? "stays" : "joins") : stateOf("LOST"),
    heartbeat: worker?.heartbeat_age_ms,
  };
}

// The resize of a replica that is under way.
function resizeOf(replica, operations) {
  const running = operations.find((it) => it.state === "RUNNING");
  const resize = running?.replicas.find((it) => it.replica === replica.replica);
  const over = ["WAITING", "DONE", "ROLLED_BACK", "FAILED"].includes(resize?.stage);
  return resize && !over ? {...resize, summary: running.summary, started: running.started} : null;
}

// Why the replica does not serve, or last did not.
function troubleOf(replica, events) {
  if (replica.state === "SERVING") return null;
  const turns = ["EPOCH_FAILED", "EPOCH_ENDED", "SERVING"];
  const failed = events.find((it) => it.replica === replica.replica && turns.includes(it.kind));
  const lines = [];
  if (failed?.kind === "EPOCH_FAILED") {
    lines.push({what: `Epoch ${failed.epoch} failed`, text: failed.message});
  }
  if (replica.failure && replica.failure.message !== failed?.message) {
    const waits = replica.state === "WAITING";
    lines.push({what: waits ? "Now" : "Refused", text: replica.failure.message, waits});
  }
  return lines.length > 0 ? lines : null;
}

// A replica that waits since it failed has failed.
function replicaState(replica, trouble) {
  const failed = replica.state === "WAITING" && trouble?.some((it) => !it.waits);
  return failed ? stateOf("FAILED", "failed, waiting") : stateOf(replica.state);
}

function fleetReplica(replica, workers, json) {
  const resize = resizeOf(replica, json.operations);
  const trouble = troubleOf(replica, json.events);
  const epochs = [];
  if (replica.topology) {
    epochs.push({
      ...epochOf(replica.topology, {SERVING: "serves", FORMING: "forms"}[replica.state] ?? "ended"),
      ranks: replica.topology.ranks.map((rank) => currentRank(replica, rank, workers)),
    });
  }
  if (replica.next) {
    epochs.push({
      ...epochOf(replica.next, "is prepared"),
      ranks: replica.next.ranks.map((rank) => nextRank(replica, rank, workers, resize)),
    });
    const stays = new Set(replica.next.ranks.map((rank) => rank.worker_id));
    for (const rank of epochs[0].ranks) rank.leaves = !stays.has(rank.worker);
  }
  return {
    id: replica.replica, state: replicaState(replica, trouble), since: replica.serving_since,
    epochs, resize, trouble,
  };
}

// What ranks of an epoch that has ended held is given back.
const fleetLedgers = (replica, workers) => replica.ledgers.map((ledger) => {
  const worker = replica.topology.ranks[ledger.rank]?.worker_id ?? "";
  const cp = replica.topology.config.cp;
  return {...ledger, replica: replica.replica, cp, worker, device: workers.get(worker)?.device};
});

const epochOf = (topology, role) => ({epoch: topology.epoch, role, config: topology.config});

function fleetView(json) {
  const workers = new Map(json.workers.map((worker) => [worker.worker_id, worker]));
  const shown = new Set(json.replicas.flatMap(
    (it) => (it.topology?.ranks ?? []).concat(it.next?.ranks ?? []).map((rank) => rank.worker_id)));
  const leaders = json.workers.filter((worker) => worker.rank === 0);
  return {
    daemon: json.daemon, config: json.config, model: json.model, term: json.term,
    replicas: json.replicas.map((replica) => fleetReplica(replica, workers, json)),
    idle: json.workers.filter(
      (it) => it.rank === undefined && (it.drained || !shown.has(it.worker_id))),
    reports: json.workers.filter((worker) => worker.rank !== undefined),
    tokens: leaders.reduce((sum, worker) => sum + worker.tokens, 0),
    queued: leaders.reduce((sum, worker) => sum + worker.queued_requests, 0),
    ledgers: json.replicas.filter((it) => it.state === "SERVING").flatMap(
      (it) => fleetLedgers(it, workers)),
    phases: json.replicas.map((it) => ({replica: it.replica, milliseconds: it.phases_ms})),
    operations: json.operations, events: json.events,
  };
}

// --- A worker knows of itself, and of the others where they are.

function workerReplica(id, epochs, json) {
  const drawn = epochs.map((epoch) => ({
    ...epochOf(epoch.topology, words(epoch.state)),
    ranks: epoch.topology.ranks.map((rank) => ({
      ...placeOf(epoch.topology, rank),
      ...(rank.rank === epoch.rank ? ownRank(epoch, json.worker) : {elsewhere: true}),
    })),
  }));
  const newest = epochs.at(-1);
  const serving = epochs.find((epoch) => epoch.state === "SERVING") ?? newest;
  const failed = epochs.filter((epoch) => epoch.failure);
  return {
    id, state: stateOf(serving.state), epochs: drawn, resize: null,
    trouble: failed.length > 0 ? failed.map((epoch) => ({
      what: `Epoch ${epoch.epoch} failed`, text: epoch.failure.message})) : null,
  };
}

const ownRank = (epoch, worker) => ({
  own: true, state: stateOf(epoch.state), device: worker.device, ...figuresOf(epoch),
  progress: ["SERVING", "FAILED"].includes(epoch.state) ? null : progressOf(epoch.progress),
});

function workerView(json) {
  const ids = [...new Set(json.epochs.map((epoch) => epoch.replica))];
  const leading = json.epochs.filter((epoch) => epoch.rank === 0);
  return {
    daemon: json.daemon, model: json.model, term: null,
    config: json.epochs.at(-1)?.topology.config ?? null,
    replicas: ids.map((id) => workerReplica(
      id, json.epochs.filter((epoch) => epoch.replica === id), json)),
    idle: json.epochs.length > 0 ? [] : [{...json.worker, state: "ENLISTED"}],
    reports: json.epochs.filter((epoch) => epoch.state === "SERVING"),
    tokens: json.epochs.reduce((most, epoch) => Math.max(most, epoch.tokens), 0),
    queued: leading.reduce((sum, epoch) => sum + epoch.queued_requests, 0),
    ledgers: json.epochs.filter((epoch) => Object.keys(epoch.ledger.bytes).length > 0).map(
      (epoch) => ({...epoch.ledger, replica: epoch.replica, epoch: epoch.epoch,
        cp: epoch.topology.config.cp,
        device: json.worker.device, worker: json.worker.worker_id})),
    phases: [], operations: [], events: [],
  };
}

const viewOf = (json) => json.daemon.role === "worker" ? workerView(json) : fleetView(json);

// One rank: who it is, where, in which state, and how full.

function makeRank() {
  const node = make("article", {class: "rank", tabindex: "0"});
  node.parts = {
    number: make("b", {class: "number"}), leader: make("span", {class: "leader"}, "leader"),
    state: makeState(), worker: make("p", {class: "worker"}), where: make("p", {class: "where"}),
    bar: make("div", {class: "bar", "aria-hidden": "true"}, make("i")),
    level: make("p", {class: "level"}, make("span"), make("span")),
    pulse: make("p", {class: "pulse"}, make("span"), make("span")),
    groups: make("p", {class: "tags", "aria-hidden": "true"},
      make("span", {class: "tag tp"}, "TP"), make("span", {class: "tag cp"}, "CP")),
  };
  const {number, leader, state, worker, where, bar, level, pulse, groups} = node.parts;
  node.append(make("header", {}, number, leader, state), worker, where, bar, level, pulse, groups);
  return node;
}

function updateRank(node, rank) {
  const parts = node.parts;
  node.facts = rank;
  const state = rank.leaves ? {...rank.state, word: `${rank.state.word}, leaves`} : rank.state;
  setAttribute(node, "data-tone", state?.tone ?? "none");
  setAttribute(node, "data-own", rank.own ? "yes" : null);
  setText(parts.number, rank.rank);
  show(parts.leader, rank.leader);
  show(parts.state, !rank.elsewhere);
  if (state) setState(parts.state, state);
  setText(parts.worker, rank.worker);
  setAttribute(parts.worker, "title", rank.worker);
  setText(parts.where, whereOf(rank));
  setAttribute(parts.where, "title", [rank.device?.name, rank.address].filter(Boolean).join(", "));
  const level = levelOf(rank);
  for (const part of [parts.bar, parts.level]) show(part, level !== null);
  if (level) {
    setAttribute(parts.bar, "data-kind", level.kind);
    setShare(parts.bar, "--level", level.fraction);
    setText(parts.level.firstChild, level.name);
    setText(parts.level.lastChild, level.text);
  }
  setText(parts.pulse.firstChild, level?.below ?? pulseOf(rank));
  const heartbeat = rank.heartbeat === undefined ? "" : `♥ ${duration(rank.heartbeat)}`;
  setText(parts.pulse.lastChild, heartbeat);
  setAttribute(parts.pulse.lastChild, "title", "since the last heartbeat");
  setAttribute(node, "aria-label", spoken(rank, state, level));
}

const whereOf = (rank) => rank.device ? `${deviceName(rank.device)} on ${rank.host}` : rank.address;

// KV use, or how far a phase is.
function levelOf(rank) {
  if (rank.progress) {
    const {phase, fraction, known, text} = rank.progress;
    return {kind: known ? "progress" : "unknown", fraction, name: phase, text: "", below: text};
  }
  if (!rank.kvTotal) return null;
  const fraction = share(rank.kvUsed, rank.kvTotal);
  return {kind: "kv", fraction, name: `KV ${percent(fraction)}`,
    text: `${commas(rank.kvUsed)} of ${commas(rank.kvTotal)}`};
}

// Which KV blocks of a sequence it holds; where it holds all, the last step.
function pulseOf(rank) {
  if (rank.elsewhere) return `cp ${rank.cp}, tp ${rank.tp}`;
  if (!rank.kvTotal) return "";
  if (rank.cpSize === 1) return `step ${commas(rank.step)}`;
  return `blocks ${[0, 1, 2].map((i) => rank.cp + i * rank.cpSize).join(" ")} ‥`;
}

const spoken = (rank, state, level) => [
  `Rank ${rank.rank}`, rank.leader ? "leader" : "", `worker ${rank.worker}`, whereOf(rank),
  state?.word ?? "", level ? `${level.name}, ${level.below ?? level.text}` : "",
  `TP group of ranks ${rankList(rank.tpGroup)}`, `CP group of ranks ${rankList(rank.cpGroup)}`,
].filter(Boolean).join(", ");

// --- Workers that have none.

const makeIdle = () =>
  make("li", {}, make("b"), makeState(), make("span", {class: "where"}));

function updateIdle(node, worker) {
  const [name, state, where] = node.children;
  setText(name, worker.worker_id);
  setState(state, worker.drained ? stateOf("DRAINED") : stateOf(worker.state,
    worker.state === "ENLISTED" ? "standby" : words(worker.state)));
  setText(where, `${deviceName(worker.device)} on ${hostOf(worker.address)}`);
  setAttribute(where, "title", [worker.device.name, worker.address].filter(Boolean).join(", "));
}

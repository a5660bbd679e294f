// The line of figures at the top.

// Leaders tell their tokens with a heartbeat, which may come more seldom than this page asks.
const WINDOW = 10000;
let samples = [];

// Tokens per second of the last seconds; null before the second answer.
function throughput(view) {
  const now = {tokens: view.tokens, at: Date.parse(view.daemon.time)};
  const last = samples.at(-1);
  // A leader that is new begins to count at 0, and so does a daemon that is.
  if (last && (now.tokens < last.tokens || now.at < last.at)) samples = [];
  samples = samples.filter((it) => it.at >= now.at - WINDOW).concat(now);
  const took = now.at - samples[0].at;
  return took > 0 ? (now.tokens - samples[0].tokens) * 1000 / took : null;
}

function stateFact(view) {
  const serving = view.replicas.filter((it) => it.state.name === "SERVING").length;
  const worst = view.replicas.find((it) => it.state.name !== "SERVING")?.state;
  if (view.replicas.length === 0) return {name: "State", value: "standby", tone: "idle"};
  const resizing = view.replicas.some((it) => it.resize);
  if (resizing) return {name: "State", value: "resizing", tone: "busy"};
  const value = worst?.word ?? "serving";
  const some = view.replicas.length > 1 ? ` (${serving} of ${view.replicas.length})` : "";
  return {name: "State", value: value + some, tone: worst?.tone ?? "ok"};
}

function cacheFact(view) {
  const used = view.reports.reduce((sum, it) => sum + it.kv_blocks_used, 0);
  const total = view.reports.reduce((sum, it) => sum + it.kv_blocks_total, 0);
  if (total === 0) return {name: "KV used", value: "–"};
  return {name: "KV used", value: percent(share(used, total)),
    title: `${commas(used)} of ${commas(total)} blocks of all ranks`};
}

function capacityFact(view) {
  const leaders = view.ledgers.filter((it) => it.rank === 0 && it.kv_blocks > 0);
  if (leaders.length === 0) return null;
  const tokens = leaders.reduce((sum, it) => sum + it.kv_blocks * it.block_tokens * it.cp, 0);
  return {name: "Capacity, tokens", value: commas(tokens)};
}

function updateSummary(view) {
  const tokens = throughput(view);
  const steps = view.reports.reduce((most, it) => Math.max(most, it.step), 0);
  keepFacts(byId("summary"), [
    stateFact(view),
    view.config && {name: "Topology", value: sizes(view.config)},
    view.daemon.role === "worker"
      ? null : {name: "Replicas", value: view.config?.replicas ?? "–"},
    {name: "Tokens/s", value: tokens === null ? "–" : rate(tokens)},
    {name: "Steps", value: commas(steps)},
    {name: "Queued", value: commas(view.queued)},
    cacheFact(view), capacityFact(view),
    {name: "Up for", value: duration(view.daemon.uptime_ms)},
  ]);
}

function updateModel(model) {
  show(byId("model"), Boolean(model));
  if (!model) return;
  keepFacts(byId("model-facts"), [
    {name: "name", value: model.name},
    {name: "architecture", value: `${model.architecture}, ${model.dtype}`},
    {name: "layers", value: `${model.layers} of ${commas(model.hidden)}, ffn ${commas(model.ffn)}`},
    {name: "attention", value: `${count(model.heads, "head")} of ${model.head_dim}, ` +
      count(model.kv_heads, "KV head")},
    {name: "vocabulary", value: commas(model.vocabulary)},
    {name: "positions", value: commas(model.max_positions)},
    {name: "weights", value: bytes(model.weight_bytes)},
  ]);
}
